"""For those who maintain ppcls: proofs of its networks, and the pages and plots of docs/.

None of it is imported by what users run, but for `ppcls zoo` and `ppcls bench --docs`."""
