"""Training: a plain loop over steps, and what a step is made of."""
