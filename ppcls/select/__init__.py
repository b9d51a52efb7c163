"""Images without labels chosen for a student to learn from: step one of SSLD (arXiv:2103.05959)."""
