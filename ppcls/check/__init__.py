"""What is wrong with a data set, found before it is trained on: `ppcls check-data`."""
