"""Pretrained weights: reading and writing checkpoint files, their name dialects, the registry."""
