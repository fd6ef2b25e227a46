"""Measure entries of the errata: `python -m errata [ENTRY …] [--write] [--data DIR]`.

Without entries and without --write it lists the entries. With --write it writes the
numbers to `docs/errata.csv` and into the tables of `docs/errata.md`; without entries it
measures all. A part whose data are missing is skipped, with the reason, and keeps its
old numbers. `--fast` skips parts that take minutes; `--source run` measures only what
comes from the committed runs (`make tables` uses it).
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
from errata.registry import Measurement


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code, 2 for an error that the user can fix."""
    options = _parser().parse_args(arguments)
    try:
        chosen = _chosen(options.entries, options.source)
        if not (options.entries or options.write):
            _list(chosen)
            return 0
        rows = _measure(chosen, options.data, options.fast)
        if options.write:
            page.write(rows)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    text = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser("python -m errata", description=text)
    add, sources = parser.add_argument, list(registry.SOURCES)
    add("entries", nargs="*", metavar="ENTRY")
    add("--write", action="store_true", help="write docs/errata.*")
    add("--source", nargs="+", choices=sources, default=sources)
    add("--fast", action="store_true", help="leave out minutes")
    where = "folder of DRIVE and kits19 (default: data)"
    add("--data", type=Path, metavar="DIR", help=where)
    return parser


def load() -> list[Measurement]:
    """Import the modules of all entries, which registers them; return their parts."""
    for group in GROUPS:
        importlib.import_module(f"errata.{group}")
    return registry.measurements()


def _chosen(names: list[str], sources: Sequence[str]) -> list[Measurement]:
    parts = load()
    known = list(dict.fromkeys(part.entry for part in parts))
    for name in names:
        if name not in known:
            raise InputError(
                f"errata: expected one of {', '.join(known)}, received {name!r}"
            )
    wanted = names or known
    return [part for part in parts if part.entry in wanted and part.source in sources]


def _list(chosen: list[Measurement]) -> None:
    for name in dict.fromkeys(part.entry for part in chosen):
        sources = (part.source for part in chosen if part.entry == name)
        print(f"{name:28s} {', '.join(sources)}")


def _measure(chosen: list[Measurement], data: Path | None, fast: bool) -> page.Rows:
    """Measure and print the parts; print the reason for each skipped part."""
    rows = []
    for part in chosen:
        title = f"{part.entry} ({part.source})"
        if fast and part.slow:
            print(f"{title}: skipped, takes minutes")
            continue
        try:
            root = by_name(part.needs).locate(data) if part.needs else None
            measured = part.rows(root)
        except InputError as error:
            print(f"{title}: skipped, no data.\n  {error}")
            continue
        print(f"{title}: {part.measured_on}")
        for row in measured:
            pair = (f"{form} {row[form] or '-'}" for form in ("published", "corrected"))
            print(f"  {row['quantity']}: {', '.join(pair)} {row['unit']}".rstrip())
        rows += measured
    return rows


if __name__ == "__main__":
    sys.exit(main())
