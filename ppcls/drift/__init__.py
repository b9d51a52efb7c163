"""Tells whether photos are still like those that an exported model was calibrated on."""

PARTS = ("features", "scores", "classes", "looks")  # that are compared
