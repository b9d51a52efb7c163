"""Calibrates an exported model on labelled images that it has not learnt from."""
