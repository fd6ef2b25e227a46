"""Measure entries of the errata: `python -m errata [ENTRY …] [--write] [--data DIR]`.

Without entries and without --write it lists them. With --write the numbers go to
`docs/errata.csv` and into the tables of `docs/errata.md`; without entries it measures
all. A part whose data are not there is skipped, with the reason, and keeps the number
that it has. `--fast` leaves out what takes minutes; `--source run` takes those parts
alone that come from the committed runs (`make tables` calls it so).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from data_io.datasets import by_name
from data_io.errors import InputError
from errata import GROUPS, page, registry
from errata.registry import Part

CSV = registry.PROJECT / "docs" / "errata.csv"
PAGE = CSV.with_suffix(".md")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 for what a user can mend."""
    options = _parser().parse_args(arguments)
    try:
        chosen = _chosen(options.entries, options.source)
        if options.entries or options.write:
            rows = _measure(chosen, options.data, options.fast)
            if options.write:
                _write(rows)
        else:
            _list(chosen)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser("python -m errata", description=about)
    parser.add_argument("entries", nargs="*", metavar="ENTRY")
    parser.add_argument("--write", action="store_true", help="write docs/errata.*")
    parser.add_argument(
        "--source", nargs="+", choices=registry.SOURCES, default=registry.SOURCES
    )
    parser.add_argument("--fast", action="store_true", help="leave out minutes")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of DRIVE and kits19 (default: data)",
    )
    return parser


def load() -> None:
    """Import the modules of all entries, which registers them."""
    for group in GROUPS:
        importlib.import_module(f"errata.{group}")


def _chosen(names: list[str], sources: Sequence[str]) -> list[Part]:
    load()
    known = list(dict.fromkeys(part.entry for part in registry.parts()))
    for name in names:
        if name not in known:
            raise InputError(
                f"errata: expected one of {', '.join(known)}, received {name!r}"
            )
    return [
        part
        for part in registry.parts()
        if (not names or part.entry in names) and part.source in sources
    ]


def _list(chosen: list[Part]) -> None:
    for name in dict.fromkeys(part.entry for part in chosen):
        sources = (part.source for part in registry.parts_of(name))
        print(f"{name:28s} {', '.join(sources)}")


def _measure(chosen: list[Part], data: Path | None, fast: bool) -> list[dict[str, str]]:
    """Measure and print parts; those that are skipped say why."""
    rows = []
    for part in chosen:
        if fast and part.slow:
            print(f"{part.entry} ({part.source}): skipped, takes minutes")
            continue
        try:
            found = part.rows(_root(part.needs, data))
        except InputError as error:
            print(f"{part.entry} ({part.source}): skipped, no data.\n  {error}")
            continue
        print(f"{part.entry} ({part.source}): {part.measured_on}")
        for row in found:
            pair = (f"{form} {row[form] or '-'}" for form in ("published", "corrected"))
            print(f"  {row['quantity']}: {', '.join(pair)} {row['unit']}".rstrip())
        rows += found
    return rows


def _root(needs: str, data: Path | None) -> Path | None:
    """The folder of a data set that a part needs; None where it needs none.

    Raises:
        InputError: it is not there.
    """
    if not needs:
        return None
    return by_name(needs).locate(data)


def _write(rows: list[dict[str, str]]) -> None:
    merged = registry.merge(registry.read(CSV), rows)
    registry.write(CSV, merged)
    page.update(PAGE, merged)


if __name__ == "__main__":
    sys.exit(main())
