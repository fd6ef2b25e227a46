"""Arguments that several commands take, each defined once."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_data", "add_epochs", "add_results", "add_split", "add_work", "folder"]


def folder(text: str) -> Path:
    """A path as typed; `~` is the home folder, also where no shell expanded it."""
    return Path(text).expanduser()


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`: where the raw files are."""
    parser.add_argument(
        "--data",
        type=folder,
        metavar="DIR",
        help="the data set's folder or zip, or the folder that contains it "
        "(default: data/<NAME>; phantoms are made when needed)",
    )


def add_epochs(parser: argparse.ArgumentParser) -> None:
    """`--epochs`: the commonest override."""
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="at most so many epochs"
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """`--results`: the folder of all results."""
    parser.add_argument(
        "--results",
        type=folder,
        default=Path("results"),
        metavar="DIR",
        help="folder of all results (default: %(default)s)",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """`--split-seed` and `--split`: which cases train and which are measured."""
    parser.add_argument(
        "--split-seed",
        type=int,
        default=0,
        metavar="N",
        help="decides the split where a data set has no fixed one (default: 0)",
    )
    parser.add_argument(
        "--split",
        type=folder,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="read the split instead: the authors' sample_list.json and testing.json, "
        "in this order, or one JSON file with training, validation and test",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """`--work`: what is safe to delete."""
    parser.add_argument(
        "--work",
        type=folder,
        default=Path(".work"),
        metavar="DIR",
        help="cache, logs and stamps; safe to delete (default: %(default)s)",
    )
