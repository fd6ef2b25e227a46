"""Arguments that several commands take, each defined once."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from data_io import bars, datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files.names import is_formula


def folder(text: str) -> Path:
    """A path as typed; `~` is the home folder, also where no shell expanded it."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~name of nobody here: a name as any other, as in a shell
        return Path(text)


def number(text: str) -> int:
    """A whole number, 0 or more, as typed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"expected a whole number, 0 or more, received {text!r}"
        )
    return int(text)


def threshold(text: str) -> float | str:
    """A softmax threshold as typed: a number between 0 and 1, or "auto"."""
    try:
        if text == "auto" or 0 < float(text) < 1:
            return text if text == "auto" else float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"expected a number between 0 and 1, or auto, received {text!r}"
    )


def share(text: str) -> float:
    """A share as typed: a number between 0 and 1."""
    found = threshold(text)
    if isinstance(found, str):
        raise argparse.ArgumentTypeError(
            f"expected a number between 0 and 1, received {text!r}"
        )
    return found


def inches(text: str) -> float:
    """The width of a figure as typed: 1 to 20 inches."""
    try:
        if 1 <= float(text) <= 20:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected 1 to 20 inches, received {text!r}")


SPLIT = ("--split-seed", "--split", "--split-by")
_OPTIONS: dict[str, dict[str, Any]] = {
    "--data": {
        "type": folder,
        "metavar": "DIR",
        "help": "the data set's folder or zip, or the folder that contains it "
        "(default: data/<NAME>; phantoms are made when needed)",
    },
    "--decision": {
        "type": folder,
        "metavar": "FILE",
        "help": "apply the temperature, threshold and volume correction of this file, "
        "which `dscpp calibrate` wrote",
    },
    "--epochs": {"type": int, "metavar": "N", "help": "at most so many epochs"},
    "--jobs": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "runs at a time (default: %(default)s)",
    },
    "--results": {
        "type": folder,
        "default": Path("results"),
        "metavar": "DIR",
        "help": "folder of all results (default: %(default)s)",
    },
    "--split-seed": {
        "type": number,
        "default": 0,
        "metavar": "N",
        "help": "decides the split where a data set has no fixed one (default: 0)",
    },
    "--split": {
        "type": folder,
        "action": "extend",
        "nargs": "+",
        "default": [],
        "metavar": "FILE",
        "help": "read the split instead: the authors' sample_list.json and "
        "testing.json, in this order, or one JSON file with training, validation and "
        "test",
    },
    "--split-by": {
        "metavar": "KIND",
        "help": "keep groups in one part of the split: sequence (of the videos of "
        "cvc-clinicdb); results go to a data set of their own",
    },
    "--threshold": {
        "type": threshold,
        "metavar": "T",
        "help": "foreground where its probability is at least T; auto: T with the "
        "best mean Dice on the run's validation cases (default: the most probable "
        "class)",
    },
    "--work": {
        "type": folder,
        "default": Path(".work"),
        "metavar": "DIR",
        "help": "cache and logs; safe to delete (default: %(default)s)",
    },
}


def add(parser: argparse._ActionsContainer, *names: str) -> None:
    """Options that several commands take, by their names."""
    for name in names:
        parser.add_argument(name, **_OPTIONS[name])


def add_own(
    parser: argparse.ArgumentParser,
    title: str = "your own images, in place of --dataset and --data",
) -> None:
    """`--images`, `--masks`, `--name`, `--classes`: a user's own images."""
    own = parser.add_argument_group(title)
    own.add_argument(
        "--images",
        type=folder,
        metavar="DIR",
        help="folder of images (png, tif, jpg, bmp, gif) or NIfTI volumes",
    )
    own.add_argument(
        "--masks",
        type=folder,
        metavar="DIR",
        help="folder of their label maps, named as the images or with an ending such "
        "as _mask; values 0 and one other, or 0, 1, 2, ...",
    )
    own.add_argument(
        "--name",
        metavar="NAME",
        help="what to call them in results",
    )
    own.add_argument(
        "--classes",
        metavar="NAMES",
        help='names of the classes in the order of their values, such as "background, '
        'kidney, tumour" (default: derived from the label maps)',
    )


def take_own(options: argparse.Namespace) -> Record | None:
    """Look at own images where they are given, and say what was found.

    Args:
        options: from `add_own`, `--dataset`, `--data` and `--work`; its `dataset` and
            `data` become those of the own images.

    Returns:
        The record of own images; None for other data sets.

    Raises:
        InputError: images that do not fit, neither images nor a data set, or groups
            that the data set does not have.
    """
    _take_split_by(options)
    if options.images is None and options.masks is None:
        if options.dataset is None:
            raise InputError(
                "expected --dataset NAME, or your own data with --images DIR and "
                "--masks DIR; received neither"
            )
        return _record_of(options.dataset, options.data)
    if (
        options.images is None
        or options.masks is None
        or options.dataset
        or options.data
    ):
        raise InputError(
            "expected both --images DIR and --masks DIR, and neither --dataset nor "
            "--data; received another combination"
        )
    from data_io.own_images import describe as own

    name = f"own-{options.name}" if options.name else "own"
    found = own.describe(
        options.images, options.masks, options.work, name, class_names(options)
    )
    bars.note(str(found))
    options.dataset, options.data = name, found.root.absolute()
    return _record_of(name, options.data)


def _take_split_by(options: argparse.Namespace) -> None:
    """Where groups are to stay together, take the data set that keeps them so."""
    kind = getattr(options, "split_by", None)
    if not kind:
        return
    if not options.dataset:
        raise InputError(
            f"--split-by {kind}: expected a data set whose files tell such groups, "
            "received own images. Give a split of yours: --split FILE"
        )
    options.dataset = datasets.split_by(options.dataset, kind)


def class_names(options: argparse.Namespace) -> list[str]:
    """The names that `--classes` lists; [] where it is not given.

    Raises:
        InputError: a name twice, or one that a spreadsheet takes for a formula.
    """
    texts = [text.strip() for text in (options.classes or "").split(",")]
    names = [name for name in texts if name]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"--classes: expected a name of its own for each class, received "
            f"{twice[0]!r} more than once."
        )
    formulas = [name for name in names if is_formula(name)]
    if formulas:
        raise InputError(
            f"--classes: expected names that begin with a letter or digit, received "
            f"{formulas[0]!r}, which a spreadsheet takes for a formula."
        )
    return names


def _record_of(dataset: str, data: Path | None) -> Record | None:
    """The record of own images; None where the data set's module has one for all."""
    module = datasets.by_name(dataset)
    own = module is datasets.by_name("own")
    return module.record(module.locate(data)) if own else None
