"""Compare our time and memory with others': `make bench`."""
