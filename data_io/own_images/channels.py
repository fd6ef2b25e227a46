"""Several image files of a case, which become its channels.

They are named as nnU-Net names modalities: `case_0000`, `case_0001`, ... Whether such a
number tells a channel, or is part of a case's own name, is decided for a whole folder.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from data_io.files import nifti

Groups = dict[str, dict[str, Path]]
"""Files by case and number; the number of a file that has none is ""."""

_FIRST = "0000"
_NUMBERED = re.compile(r"(.+)_(\d{4})")
_NUMBER = re.compile(r"_\d{4}(?![^\W_])")


def grouped(
    files: Mapping[str, Path],
    labels: Collection[str] | None = None,
    known: Sequence[str] | None = None,
) -> Groups:
    """Group image files by case.

    Numbers tell channels where some file has `_0000` and no label map is named after a
    numbered file. Without label maps: where they did in the network's training; and of
    volumes also where `_0000` is the only number, so that it counts no cases.

    Args:
        files: by name without ending.
        labels: names of the label maps without ending; None where there are none.
        known: numbers of the channels that a network takes; None for one file a case.
    """
    groups: Groups = {}
    are_channels = _are_channels(files, labels, known)
    for stem, path in files.items():
        match = _NUMBERED.fullmatch(stem) if are_channels else None
        case, number = match.groups() if match else (stem, "")
        groups.setdefault(case, {})[number] = path
    return groups


def _are_channels(
    files: Mapping[str, Path],
    labels: Collection[str] | None,
    known: Sequence[str] | None,
) -> bool:
    numbers = {stem: match[2] for stem in files if (match := _NUMBERED.fullmatch(stem))}
    if known and len(known) > 1:
        return True
    if _FIRST not in numbers.values():
        return False
    if labels is not None:
        ends = ((label, end) for label in labels for end in _NUMBER.finditer(label))
        return not any(label[: end.end()] in numbers for label, end in ends)
    volumes = all(nifti.is_volume(files[stem]) for stem in numbers)
    return bool(known) or (volumes and set(numbers.values()) == {_FIRST})


def usual(groups: Groups) -> tuple[str, ...] | None:
    """The numbers that half of the cases or more have; None where files have none."""
    counts = Counter(number for files in groups.values() for number in files if number)
    return tuple(sorted(n for n in counts if 2 * counts[n] >= len(groups))) or None


def complete(
    groups: Groups, wanted: Sequence[str] | None, whose: str
) -> tuple[Groups, list[str]]:
    """The cases that have the images wanted, in their order; and what is wrong.

    Args:
        groups: from `grouped`.
        wanted: numbers of the channels; None, or one, for one file of any name.
        whose: has them, such as "most cases have them".

    Returns:
        Of each case the files in the order of their numbers; a line a problem.
    """
    wanted = wanted or ()
    single = len(wanted) < 2
    good, problems = {}, []
    for case, files in groups.items():
        if len(files) == 1 if single else set(files) == set(wanted):
            good[case] = dict(sorted(files.items()))
        elif single:
            problems += [
                f"{path}: expected one image of case {case}, as {whose}, found "
                f"{len(files)}. Take out all but one."
                for path in list(files.values())[1:]
            ]
        else:
            problems += _unlike(case, files, wanted, whose)
    return good, problems


def _unlike(
    case: str, files: Mapping[str, Path], wanted: Sequence[str], whose: str
) -> list[str]:
    """The images of a case that are missing, or are too many."""
    number, path_of_one = next(iter(files.items()))
    ending = path_of_one.name[len(f"{case}_{number}" if number else case) :]
    expected = f"the images {shown(wanted)} of each case, as {whose}"
    missing = [
        f"{path}: expected {expected}, found no such file among those given. "
        f"{'Give the folder with it' if path.exists() else 'Put it there'}, or take "
        f"case {case} out."
        for number in wanted
        if number not in files
        for path in [path_of_one.with_name(f"{case}_{number}{ending}")]
    ]
    return missing + [
        f"{path}: expected {expected}, found this one too. Take it out."
        for number, path in files.items()
        if number not in wanted
    ]


def shown(numbers: Sequence[str]) -> str:
    """Such as `_0000, _0001`."""
    return ", ".join(f"_{number}" for number in numbers)
