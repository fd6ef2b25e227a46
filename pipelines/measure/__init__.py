"""Measures, histograms and statistics: numpy and scipy only, no network library."""
