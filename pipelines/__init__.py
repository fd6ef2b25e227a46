"""What is run: training, prediction, measures, tables."""
