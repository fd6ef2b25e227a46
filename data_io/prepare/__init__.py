"""From files to what a network takes, and back to the size of the image."""
