"""Losses: against labels, and between student and teacher."""
