"""What each difference between paper, released code and theory changes.

`python -m errata` lists the entries, `python -m errata ENTRY` measures one, and `make
errata` writes `docs/errata.csv` and the tables of `docs/errata.md`. Like `benchmarks`
this package is not installed: it may import every other package, and none imports it.
"""

GROUPS = ("runs", "measures", "images", "volumes", "training", "formulas", "printed")
"""The modules of the entries, in the order of the page."""
