"""The paper's figures from the runs at hand: curves, and pictures with images."""
