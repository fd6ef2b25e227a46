"""The paper's figures from our runs: curves, and pictures with images."""
