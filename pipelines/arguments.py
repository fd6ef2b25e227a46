"""Arguments of the commands, from `commands.yaml`, and what several of them mean."""

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from data_io import bars, datasets
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files.names import is_formula
from pipelines import loss_names


def folder(text: str) -> Path:
    """Return the path typed; expand `~` where no shell did."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~name of nobody here: a name as any other, as in a shell
        return Path(text)


def number(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"expected a whole number, 0 or more, received {text!r}"
        )
    return int(text)


def _fraction(
    expected: str, fits: Callable[[float], bool], *words: str
) -> Callable[[str], float | str]:
    """Return a function that reads a number in a range, or one of some words."""

    def read(text: str) -> float | str:
        if text in words:
            return text
        with contextlib.suppress(ValueError):
            if fits(float(text)):
                return float(text)
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")

    return read


def _is_share(number: float) -> bool:
    return 0 < number < 1


_SHARE = "a number between 0 and 1"
_TYPES: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "number": number,
    "threshold": _fraction(f"{_SHARE}, or auto", _is_share, "auto"),
    "share": _fraction(_SHARE, _is_share),
    "inches": _fraction("1 to 20 inches", lambda number: 1 <= number <= 20),
    "path": folder,
    "text": str,
}


@cache
def commands() -> dict[str, Any]:
    """Read the table of commands, `commands.yaml`."""
    import yaml

    text = Path(__file__).with_name("commands.yaml").read_text("utf-8")
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(text, quick)["commands"])


@cache
def _words() -> dict[str, str]:
    """Return what replaces the names in braces in the help texts."""
    from pipelines.training import protocol

    values = {"datasets": datasets.NAMES, "losses": loss_names.NAMES}
    values["settings"] = protocol.KEYS
    return {key: ", ".join(names) for key, names in values.items()}


def add(parser: argparse._ActionsContainer, wanted: Mapping[str, Any]) -> None:
    """Add the arguments of `commands.yaml`; an entry without help is a group."""
    for name, entry in wanted.items():
        if "help" not in entry:
            add(parser.add_argument_group(name), entry)
            continue
        options = {**entry, "help": entry["help"].format(**_words())}
        for kind in _TYPES.keys() & entry.keys():
            options |= {"type": _TYPES[kind], "metavar": options.pop(kind)}
        parser.add_argument(*name.split(), **options)


def take_own(options: argparse.Namespace) -> Record | None:
    """Describe own images where they are given, and print the description.

    The record is that of own images; None for other data sets.

    Args:
        options: those of own images, `--dataset`, `--data` and `--work`; its `dataset`
            and `data` become those of the own images.

    Raises:
        InputError: images that do not fit, neither images nor a data set, or groups
            that the data set does not have.
    """
    _take_split_by(options)
    given = [folder is not None for folder in (options.images, options.masks)]
    if not any(given) and options.dataset is not None:
        return _record_of(options.dataset, options.data)
    if not all(given) or options.dataset or options.data:
        raise InputError(
            "expected --dataset NAME, or your own data with both --images DIR and "
            "--masks DIR, and then neither --dataset nor --data; received another "
            "combination"
        )
    from data_io.own_images import describe

    name = f"own-{options.name}" if options.name else "own"
    described = describe.describe(
        options.images, options.masks, options.work, name, class_names(options)
    )
    bars.note(str(described))
    options.dataset, options.data = name, described.root.absolute()
    return _record_of(name, options.data)


def _take_split_by(options: argparse.Namespace) -> None:
    """Take the data set whose split keeps the groups of `--split-by` together."""
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
    """Return the names that `--classes` lists; [] without it.

    Raises:
        InputError: a name twice, or one that a spreadsheet takes for a formula.
    """
    texts = [text.strip() for text in (options.classes or "").split(",")]
    names = [name for name in texts if name]
    counts = Counter(names)
    wrong = [name for name in counts if counts[name] > 1 or is_formula(name)]
    if wrong:
        raise InputError(
            "--classes: expected names that begin with a letter or digit, each once, "
            f"received {wrong[0]!r}; a spreadsheet takes others for formulas"
        )
    return names


def _record_of(dataset: str, data: Path | None) -> Record | None:
    """Return the record of own images; None for other data sets."""
    module = datasets.by_name(dataset)
    is_own = module is datasets.by_name("own")
    return module.record(module.locate(data)) if is_own else None
