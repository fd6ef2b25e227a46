"""Ours against peers: `make bench-losses`, `make bench-evaluation`."""
