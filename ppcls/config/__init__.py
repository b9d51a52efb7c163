"""Typed, located configuration values."""
