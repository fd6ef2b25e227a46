"""Probabilities: of a trained network or of any program; their measures."""
