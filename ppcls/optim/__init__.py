"""Optimizers, learning rates by step, averages of weights, what is frozen."""
