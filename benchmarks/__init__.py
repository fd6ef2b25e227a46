"""Ours against peers, timed in turn; `make bench-losses` runs what is here."""
