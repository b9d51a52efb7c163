"""`ppcls compare`: whether one classifier is better than another, and what differs between them."""
