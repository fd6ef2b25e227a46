"""What each difference between paper, released code and theory does to the numbers.

`python -m errata` lists the entries, `python -m errata ENTRY` measures one, and `make
errata` writes `docs/errata.csv` and the tables of `docs/errata.md`. Like `benchmarks`
it is not installed: it uses every room and none uses it.
"""

GROUPS = ("runs", "measures", "images", "volumes", "training", "formulas", "printed")
"""The modules of the entries, in the order of the page."""
