"""Configs of PaddleClas 2.x read, and written again as recipes."""
