"""What is wrong with a data set: every file decoded, leaks across a split."""
