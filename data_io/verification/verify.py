"""Decodes every file of a data set and says all that is wrong with it at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_io import bars, pool, splits
from data_io.datasets import is_own
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from data_io.errors import InputError, Problems, is_text, not_text
from data_io.files.hashing import Memory, stamp_of
from data_io.prepare import native_grid
from data_io.verification import images, volumes
from data_io.verification.report import AGAIN, Finding, Report, Say, counted

# Below it all is decoded before other processes would have started.
FEW_BYTES = 1 << 26
_OWN_REMEDIES = {
    "not finite": "Replace them by the value of what surrounds the body.",
    "values": "Is this the label map?",
    "axes": "Where its header is wrong, correct it.",
    "affine": "",  # said already
}
Facts = dict[str, Any]
_ByCase = Mapping[str, Mapping[str, Facts]]
_Names = Mapping[tuple[str, str], str]  # of files, by case and role
Look = Callable[[Path, str], Facts]
_File = tuple[str, str, Path]  # case, role, path
_Item = tuple[Look, Path, str]
_Found = tuple[list[int], Facts | None, list[str]]  # stamp, facts, faults


def audit(
    dataset: Dataset,
    root: Path,
    state: Path | None = None,
    jobs: int | None = None,
) -> Report:
    """Decode every file of a data set and compare it with the record.

    A file decoded before is not decoded again while it is the same
    (`data_io.files.hashing.stamp_of`); what it held is judged anew each time.

    Args:
        dataset: the data set, from `data_io.datasets.by_name`.
        root: its folder, from `dataset.locate`.
        state: JSON file that remembers what was decoded; None to decode everything.
        jobs: number of processes that decode; a file that makes one crash is a
            problem like any other. 0 for none but this one. None for as many as there
            are processors where much is to be decoded, else for 0. What is found is
            the same.

    Raises:
        InputError: no data set at all.
    """
    record, root = dataset.record(root), Path(root)
    home = dataset.home(root)
    unread = [case for case in splits.cases(dataset, root) if not is_text(case)]
    if unread:
        raise Problems(f"{record.title} in {home}", [not_text(case) for case in unread])
    fixed = dataset.split(root) or {"to be split": splits.cases(dataset, root)}
    counts = {part: len(ids) for part, ids in fixed.items()}
    report = Report(record.title, home, counts, name=record.name)
    files = present(dataset, root)
    examined_files = examine(files, dataset.look, state, jobs)
    report.decoded, report.skipped = examined_files.decoded, examined_files.skipped
    report.problems = _problems(dataset, root, files, examined_files)
    summarise(report, examined_files.facts)
    report.classes = _marked(dataset.values(root), examined_files.facts)
    names = {(case, role): relative(path, home) for case, role, path in files}
    report.warned = _of_masks(names, examined_files.facts)
    report.warned |= _of_images(record, dataset.DIRECTIONS, examined_files.facts)
    report.warnings += [examined_files.warning] if examined_files.warning else []
    report.warnings += [*dataset.remarks(root), *report.warned]
    return report


def _problems(
    dataset: Dataset, root: Path, files: Sequence[_File], examined_files: "Examined"
) -> list[Finding]:
    """All that is wrong with the folder and its files."""
    home, record = dataset.home(root), dataset.record(root)
    record = replace(record, axes=dataset.AXES or record.axes)
    problems = [
        finding_maker(home, case, role, path)("unreadable", text)
        for case, role, path, text in examined_files.faults
    ]
    # Of a folder in a file's place both are true; what was opened says more.
    named = {problem.file for problem in problems}
    layout = [t for t in dataset.check(root) if t.partition(": ")[0] not in named]
    problems = [*(Finding("layout", text) for text in layout), *problems]
    for case, role, path in files:
        facts = examined_files.facts.get(case, {})
        if role in facts:
            say = finding_maker(home, case, role, path)
            problems += judge(record, role, say, facts)
    return problems


def judge(
    record: Record, role: str, say: Say, facts: Mapping[str, Facts]
) -> list[Finding]:
    """Return the problems of a file, of facts of all files of its case, by role."""
    kind = volumes if facts[role]["mode"] == "volume" else images
    findings = kind.judge(record, role, say, facts[role], facts)
    return [_of_own(one) for one in findings] if is_own(record.name) else findings


def _of_own(finding: Finding) -> Finding:
    """The finding with a remedy for own images: they have no original download."""
    remedy = _OWN_REMEDIES.get(finding.kind, "Correct it, or take its case out.")
    return replace(finding, message=finding.message.replace(AGAIN, remedy).rstrip())


@dataclass
class Examined:
    """What was found in files.

    Attributes:
        facts: of the sound ones, by case and role.
        faults: case, role, path and what is wrong of those that can't be decoded.
        decoded: number of files decoded now.
        skipped: number of files that were known.
        warning: why what was found can't be remembered, or "".
    """

    facts: dict[str, dict[str, Facts]] = field(default_factory=dict)
    faults: list[tuple[str, str, Path, str]] = field(default_factory=list)
    decoded: int = 0
    skipped: int = 0
    warning: str = ""


def examine(
    files: Sequence[_File],
    look: Look,
    state: Path | None = None,
    jobs: int | None = None,
) -> Examined:
    """Decode files, of which case, role and path are given, unless they are known.

    `look` gives the facts of a path and role; all else is as for `audit`.
    """
    memory = Memory(state)
    facts_of = [memory.get(path, role) for _, role, path in files]
    todo = [index for index, facts in enumerate(facts_of) if facts is None]
    result = Examined(skipped=len(files) - len(todo))
    broken: dict[int, list[str]] = {}
    try:
        items = [(look, files[index][2], files[index][1]) for index in todo]
        for number, (stamp, facts, texts) in decode(items, jobs):
            index = todo[number]
            facts_of[index], broken[index] = facts, texts
            if facts is not None:
                memory.put(files[index][2], files[index][1], stamp, facts)
                result.decoded += 1
    finally:  # What was decoded before a stop is not decoded again.
        failed = memory.save() if todo else ""
    for index, (case, role, path) in enumerate(files):
        facts = facts_of[index]
        if facts is not None:
            result.facts.setdefault(case, {})[role] = facts
        result.faults += [(case, role, path, text) for text in broken.get(index, [])]
    if failed:
        result.warning = (
            f"{state} can't be written ({failed}): next time all is decoded again"
        )
    return result


def decode(items: Sequence[_Item], jobs: int | None) -> Iterator[tuple[int, _Found]]:
    """Decode files; yield index and what `examined` gives, in no order.

    The bar counts bytes: of volumes one may be a hundred times another.
    """
    sizes = [_size_of(path) for _, path, _ in items]
    if jobs is None:
        jobs = pool.processors() if sum(sizes) > FEW_BYTES else 0
    bar = bars.bar(
        total=sum(sizes), desc="verify", unit="B", unit_scale=True, delay=1,
        leave=False,
    )  # fmt: skip
    with bar:
        for number, found in pool.each(examined, items, jobs):
            bar.update(sizes[number])
            if isinstance(found, pool.Crash):
                fault = "found one that makes the decoder crash"
                yield number, _undecodable(items[number][1], fault)
            else:
                yield number, found


def examined(item: _Item) -> _Found:
    """The stamp of a file, its facts or None, and what is wrong with it."""
    look, path, role = item
    try:
        return stamp_of(path), look(path, role), []
    except Problems as error:
        return [], None, list(error.problems)
    except InputError as error:
        return [], None, [str(error)]
    except Exception as error:  # A decoder may raise anything; the next file goes on.
        return _undecodable(path, f"found {type(error).__name__} ({error})")


def _undecodable(path: Path, fault: str) -> _Found:
    text = f"{path}: expected a file that can be decoded, {fault}. {AGAIN}"
    return [], None, [text]


def present(dataset: Dataset, root: Path) -> list[_File]:
    """Case, role and path of every file of the data set that is there."""
    return [
        (case, role, path)
        for case in splits.cases(dataset, root)
        for role, path in dataset.roles(root, case).items()
        if path.exists()
    ]


def _size_of(path: Path) -> int:
    """Bytes of a file or of a folder's masks; 0 where that can't be known."""
    try:
        return stamp_of(path)[0]
    except OSError:
        return 0


def relative(path: Path, root: Path) -> str:
    """The path as problems name it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def finding_maker(root: Path, case: str, role: str, path: Path) -> Say:
    """Make findings about a file, which they name by its path below the root."""

    def say(kind: str, text: str) -> Finding:
        name = relative(path, root)
        if str(path) in text:
            text = text.replace(str(path), name, 1)
        else:
            text = f"{name}: {text}"
        return Finding(kind, text, case, role, name)

    return say


def _of_masks(names: _Names, facts: _ByCase) -> dict[str, list[str]]:
    """What is unusual in masks: warnings, and the files of each."""
    masks = {
        (case, role): file
        for case, by_role in facts.items()
        for role, file in by_role.items()
        if role not in ("image", "posterior") and is_mask(file)
    }
    overlaps = {c: k["overlap"] for (c, _), k in masks.items() if k.get("overlap")}
    greys = {
        case: file["mask"]["greys"]
        for (case, role), file in masks.items()
        if role == "observer1" and file.get("mask", {}).get("greys")
    }
    without = [names[key] for key, file in masks.items() if not share_of(file)]
    full = [
        names[case, role]
        for (case, role), file in masks.items()
        if role.startswith("observer") and file.get("mask", {}).get("foreground") == 1
    ]
    empty = [f"{names[k]}/{n}" for k, m in masks.items() for n in m.get("empty", ())]
    alone = "masks of single objects are empty"
    cut = f"masks have greys ({sum(greys.values())} pixels between 0 and 255)"
    return {
        **counted(without, masks, "masks have no foreground"),
        **counted(
            list(overlaps),
            facts,
            "images have masks of single objects that overlap "
            f"({sum(overlaps.values())} pixels, each counted once)",
        ),
        **({f"{len(empty)} {alone}, such as {empty[0]}": empty} if empty else {}),
        **counted(list(greys), facts, f"{cut}: foreground from 128 on"),
        **counted(full, masks, "masks have no background"),
    }


def _of_images(
    record: Record, directions: str | None, facts: _ByCase
) -> dict[str, list[str]]:
    """What is unusual in images: warnings, and the cases of each."""
    images = {case: roles["image"] for case, roles in facts.items() if "image" in roles}
    others = [c for c, k in images.items() if record.any_mode and k["mode"] != "RGB"]
    modes = ", ".join(sorted({images[case]["mode"] for case in others}))
    runs = {case: image.get("directions") for case, image in images.items()}
    turned = [
        case
        for case, code in runs.items()
        if native_grid.flipped_axes(code, directions)
    ]
    how = f" ({runs[turned[0]]}, as distributed {directions})" if turned else ""
    return {
        **counted(others, facts, f"images are not RGB (mode {modes}): read as RGB"),
        **volumes.doubts(images),
        **counted(
            turned,
            facts,
            "volumes are stored mirrored",
            f"{how}: they are read as they are. Copy them again from the original "
            "download",
        ),
    }


def is_mask(file: Facts) -> bool:
    """True where there is a share of foreground to speak of."""
    return "mask" in file or bool(file.get("values"))


def share_of(file: Facts) -> float:
    """The share of foreground of a file that is a mask, in [0, 1]."""
    if "mask" in file:
        return float(file["mask"]["foreground"])
    numbers = dict(file["values"])
    return float(1 - numbers.get(0, 0) / sum(numbers.values()))


def _marked(values: Sequence[int], facts: _ByCase) -> dict[str, set[int]]:
    """The classes that observer 1 marked, by case."""
    marked = {}
    for case, by_role in facts.items():
        file = by_role.get("observer1", {})
        if is_mask(file) and len(values) == 2:
            marked[case] = {1} if share_of(file) else set()
        elif is_mask(file):
            seen = {value for value, number in file.get("values", []) if number}
            marked[case] = {k for k, value in enumerate(values) if k and value in seen}
    return marked


def summarise(report: Report, facts: _ByCase) -> None:
    """Fills in the numbers, and what tells copies of an image."""
    shares: dict[str, list[float]] = {}
    for case, by_role in facts.items():
        for role, file in by_role.items():
            report.files[role] = report.files.get(role, 0) + 1
            if role == "image":
                size = tuple(file["shape"])
                report.sizes[size] = report.sizes.get(size, 0) + 1
                report.pixels[case] = file["pixels"]
                report.turned[case] = str(file.get("turned", file["pixels"]))
            elif is_mask(file):
                seen = [value for value, _ in file.get("values", [])]
                seen = file["mask"]["values"] if "mask" in file else seen
                report.values.setdefault(role, set()).update(seen)
                shares.setdefault(role, []).append(share_of(file))
    report.foreground = {role: float(np.mean(s)) for role, s in shares.items()}
