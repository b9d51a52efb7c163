"""Prediction with an exported folder; needs neither recipes nor networks."""
