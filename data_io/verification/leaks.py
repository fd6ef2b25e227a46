"""Whether the parts of a split are apart: no case of one is another's copy or kin.

What is trained on, or chooses the model, must not be measured under another name.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_io import splits
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import hashing
from data_io.verification.report import Finding, Leak, Report

_ENDING = re.compile(r"\.(png|tiff?|jpe?g|bmp|gif|npy|nii|gz|dcm|mha|nrrd)$")
_SAYS = {
    "id": "cases whose names differ in case, ending or leading zeros alone",
    "bytes": "identical files",
    "pixels": "identical pixels in different files",
    "turned": "the same image turned or mirrored",
    "group": "cases of one group",
}
_ACTION = {
    "group": "Expected in the paper's random splits; a split by group has none.",
    "id": "Rename them where they are different images, else keep one.",
}
_COPIES = "Put each into one part (--split FILE), or keep one of it."
_SHOWN = 3  # of the cases of a leak: a video may have 25 frames in each part


def audit(
    dataset: Dataset,
    root: Path,
    report: Report,
    seed: int | None,
    files: Sequence[Path] = (),
    folder: Path | None = None,
    fold: splits.Fold | None = None,
) -> splits.Split:
    """Look for leaks in the split that a training would take, see `data_io.splits.of`.

    They go into the report, which is that of `data_io.verification.verify.audit`.

    Returns:
        The split; {} where there is none, which the report then says.
    """
    try:
        split = splits.of(dataset, root, seed, files, folder, fold)
    except InputError as error:
        report.problems.append(Finding("split", str(error)))
        return {}
    named = [case for ids in split.values() for case in ids]
    report.split = {part: len(ids) for part, ids in split.items()}
    bytes_ = hashing.image_hashes(dataset, root, named, folder)
    groups = dataset.groups(root)
    report.leaks = find(split, bytes_, report.pixels, report.turned, groups)
    report.warnings += absent(split, report.classes, dataset.record(root).classes)
    return split


def absent(
    split: splits.Split, marked: Mapping[str, set[int]], classes: Sequence[str]
) -> list[str]:
    """Return a warning for each class that no case of a part has.

    `marked` are the numbers of the classes in the label map of each case; it may lack
    cases.
    """
    lacking = []
    for part, ids in split.items():
        known = [marked[case] for case in ids if case in marked]
        named: set[int] = set().union(*known)
        so = "the network can't learn it" if part == "training" else "no measure of it"
        lacking += [
            f"{part}: none of its {len(known)} label maps has the class {name}: {so}"
            for number, name in enumerate(classes)
            if number and known and number not in named
        ]
    return lacking


def find(
    split: splits.Split,
    bytes_: Mapping[str, str],
    pixels: Mapping[str, str],
    turned: Mapping[str, str],
    groups: Mapping[str, str],
) -> list[Leak]:
    """Return the leaks of a split, the surest kind of each pair only.

    They are sorted by kind, then by case.

    Args:
        split: ids by part.
        bytes_: the hash of each case's image file.
        pixels: the hash of what is decoded; may lack cases.
        turned: the same however the image is turned or mirrored; may lack cases.
        groups: the group of each case, such as a patient; may lack cases.
    """
    part_of = {case: part for part, ids in split.items() for case in ids}
    keys = {
        "bytes": bytes_,
        "pixels": pixels,
        "turned": turned,
        "id": {case: normal(case) for case in part_of},
        "group": groups,
    }
    leaks: list[Leak] = []
    for kind, key_of in keys.items():
        for cases in _across(part_of, key_of):
            if not any(set(cases) <= set(leak.cases) for leak in leaks):
                leaks.append(_leak(kind, cases, part_of, str(key_of[cases[0]])))
    return leaks


def _across(
    part_of: Mapping[str, str], key_of: Mapping[str, str]
) -> Iterable[tuple[str, ...]]:
    """Groups of cases with the same key that lie in more than one part."""
    groups: dict[str, list[str]] = {}
    for case in sorted(part_of.keys() & key_of.keys()):
        groups.setdefault(key_of[case], []).append(case)
    return [
        tuple(cases)
        for cases in groups.values()
        if len({part_of[case] for case in cases}) > 1
    ]


def _leak(
    kind: str, cases: tuple[str, ...], part_of: Mapping[str, str], key: str
) -> Leak:
    parts = tuple(part_of[case] for case in cases)
    named = [f"{case} ({part_of[case]})" for case in cases]
    if len(named) > 2 * _SHOWN:
        counts = [f"{parts.count(part)} {part}" for part in dict.fromkeys(parts)]
        named = [*named[:_SHOWN], f"... of {len(cases)}: {', '.join(counts)}"]
    what = _SAYS[kind] + (f" ({key})" if kind == "group" else "")
    message = (
        f"split: expected independent cases in its parts, found {what}: "
        f"{', '.join(named)}. {_ACTION.get(kind, _COPIES)}"
    )
    return Leak(kind, cases, parts, message)


def normal(case: str) -> str:
    """An id without what does not tell cases apart.

    Case, ending, leading zeros, and whether an accent is a character of its own.
    """
    name = unicodedata.normalize("NFC", case).casefold()
    while _ENDING.search(name):
        name = _ENDING.sub("", name)
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), name)


def require(report: Report) -> None:
    """Refuse to train on what is damaged, or measured under another name too.

    An image that is turned, and a name that is nearly another's, stop no training:
    `dscpp verify` names them.

    Raises:
        InputError: all problems, and identical files or pixels in two parts.
    """
    report.leaks = [leak for leak in report.leaks if leak.kind in ("bytes", "pixels")]
    if not report.ok:
        raise report.error()
