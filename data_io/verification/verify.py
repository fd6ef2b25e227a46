"""Decodes every file of a data set and says all that is wrong with it at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_io import bars, pool, splits
from data_io.datasets.dataset import Dataset
from data_io.datasets.folder import own
from data_io.datasets.record import Record
from data_io.errors import InputError, Problems, is_text, not_text
from data_io.files.content import Memory, stamp_of
from data_io.prepare import native
from data_io.verification import images, volumes
from data_io.verification.report import AGAIN, Finding, Report

__all__ = ["Examined", "Report", "audit", "examine", "verify"]

# Below it all is decoded before other processes would have started.
FEW_BYTES = 1 << 26
Facts = dict[str, Any]
_ByCase = Mapping[str, Mapping[str, Facts]]
_Names = Mapping[tuple[str, str], str]  # of files, by case and role
Look = Callable[[Path, str], Facts]
_File = tuple[str, str, Path]  # case, role, path
_Item = tuple[Look, Path, str]
_Found = tuple[list[int], Facts | None, list[str]]  # stamp, facts, faults


def verify(
    dataset: Dataset,
    root: Path,
    state: Path | None = None,
    progress: bool = True,
    jobs: int | None = None,
) -> Report:
    """Decodes every file of a data set and compares it with the record.

    As `audit`, for those who want to go on with sound data only.

    Raises:
        InputError: one message with all problems, a line each: which file, expected,
            found, what to do.
    """
    report = audit(dataset, root, state, progress, jobs)
    if report.problems:
        raise report.error()
    return report


def audit(
    dataset: Dataset,
    root: Path,
    state: Path | None = None,
    progress: bool = True,
    jobs: int | None = None,
) -> Report:
    """Decodes every file of a data set and compares it with the record.

    A file decoded before is not decoded again while it is the same
    (`data_io.files.content.stamp_of`); what it held is judged anew each time.

    Args:
        dataset: the data set, from `data_io.datasets.by_name`.
        root: its folder, from `dataset.locate`.
        state: JSON file that remembers what was decoded; None to decode everything.
        progress: shows a bar on stderr when it takes a while.
        jobs: number of processes that decode; a file that makes one crash is a
            problem like any other. 0 for none but this one. None for as many as there
            are processors where much is to be decoded, else for 0. What is found is
            the same.

    Returns:
        Problems, in the order of the cases, counts, sizes and label values.

    Raises:
        InputError: no data set at all.
    """
    record, root = dataset.record(root), Path(root)
    home = dataset.home(root)
    unread = [case for case in splits.cases(dataset, root) if not is_text(case)]
    if unread:
        raise Problems(f"{record.title} in {home}", [not_text(case) for case in unread])
    report = Report(record.title, home, counts_of(dataset, root), name=record.name)
    files = present(dataset, root)
    found = examine(files, dataset.look, state, progress, jobs)
    report.decoded, report.skipped = found.decoded, found.skipped
    report.problems = _problems(dataset, root, files, found)
    summarise(report, found.facts)
    report.classes = _marked(dataset.values(root), found.facts)
    names = {(case, role): relative(path, home) for case, role, path in files}
    report.warnings += [found.warning] if found.warning else []
    report.warnings += [*dataset.remarks(root), *_of_masks(names, found.facts)]
    report.warnings += _of_images(record, dataset.DIRECTIONS, found.facts)
    return report


def _problems(
    dataset: Dataset, root: Path, files: Sequence[_File], found: "Examined"
) -> list[Finding]:
    """All that is wrong with the folder and its files."""
    home, record = dataset.home(root), dataset.record(root)
    problems = [
        speaker(home, case, role, path)("unreadable", text)
        for case, role, path, text in found.faults
    ]
    # Of a folder in a file's place both are true; what was opened says more.
    named = {problem.file for problem in problems}
    layout = [t for t in dataset.check(root) if t.partition(": ")[0] not in named]
    problems = [*(Finding("layout", text) for text in layout), *problems]
    for case, role, path in files:
        known = found.facts.get(case, {})
        # Own images are judged by `data_io.own_images.describe.describe`.
        if role in known and dataset is not own:
            axes, say = dataset.AXES or record.axes, speaker(home, case, role, path)
            problems += judge(record, axes, role, say, known[role], known)
    return problems


def counts_of(dataset: Dataset, root: Path) -> dict[str, int]:
    """Number of cases by part of a fixed split, or of all that are to be split."""
    parts = dataset.split(root)
    if parts:
        return {part: len(ids) for part, ids in parts.items()}
    return {"to be split": len(splits.cases(dataset, root))}


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
    progress: bool = True,
    jobs: int | None = None,
) -> Examined:
    """Decodes files that are not known.

    Args:
        files: case, role and path of each.
        look: gives the facts of a path and role, see `Dataset.look`.
        state: as for `audit`, as are the next two.
        progress: shows a bar.
        jobs: number of processes.
    """
    memory = Memory(state)
    known = [_remembered(memory, path, role) for _, role, path in files]
    todo = [index for index, facts in enumerate(known) if facts is None]
    found = Examined(skipped=len(files) - len(todo))
    broken: dict[int, list[str]] = {}
    try:
        items = [(look, files[index][2], files[index][1]) for index in todo]
        for number, (stamp, facts, texts) in decode(items, progress, jobs):
            index = todo[number]
            known[index], broken[index] = facts, texts
            if facts is not None:
                memory.put(files[index][2], files[index][1], stamp, facts)
                found.decoded += 1
    finally:  # What was decoded before a stop is not decoded again.
        failed = memory.save() if todo else ""
    for index, (case, role, path) in enumerate(files):
        facts = known[index]
        if facts is not None:
            found.facts.setdefault(case, {})[role] = facts
        found.faults += [(case, role, path, text) for text in broken.get(index, [])]
    if failed:
        found.warning = (
            f"{state} can't be written ({failed}): next time all is decoded again"
        )
    return found


def decode(
    items: Sequence[_Item], progress: bool, jobs: int | None
) -> Iterator[tuple[int, _Found]]:
    """Decodes files; yields index and what `examined` gives, in no order.

    The bar counts bytes: of volumes one may be a hundred times another.
    """
    sizes = [_size_of(path) for _, path, _ in items]
    if jobs is None:
        jobs = pool.processors() if sum(sizes) > FEW_BYTES else 0
    bar = bars.bar(
        total=sum(sizes), desc="verify", unit="B", unit_scale=True, delay=1,
        leave=False, disable=not progress,
    )  # fmt: skip
    with bar:
        for number, entry in pool.each(examined, items, jobs):
            bar.update(sizes[number])
            crashed = isinstance(entry, pool.Crash)
            yield number, _crash(items[number][1]) if crashed else entry


def _crash(path: Path) -> _Found:
    found = "found one that makes the decoder crash"
    text = f"{path}: expected a file that can be decoded, {found}. {AGAIN}"
    return [], None, [text]


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
        found = f"found {type(error).__name__} ({error})"
        text = f"{path}: expected a file that can be decoded, {found}. {AGAIN}"
        return [], None, [text]


def present(dataset: Dataset, root: Path) -> list[_File]:
    """Case, role and path of every file of the data set that is there."""
    return [
        (case, role, path)
        for case in splits.cases(dataset, root)
        for role, path in dataset.roles(root, case).items()
        if path.exists()
    ]


def _remembered(memory: Memory, path: Path, role: str) -> Facts | None:
    """What was found in a file before, where it is facts as JSON gives them back."""
    facts = memory.get(path, role)
    try:
        sound = (
            isinstance(facts["mode"], str)
            and len(facts["shape"]) in (2, 3)
            and all(len(pair) == 2 for pair in facts.get("values", []))
            and (role != "image" or isinstance(facts["pixels"], str))
        )
    except (AttributeError, KeyError, TypeError):
        return None
    return facts if sound else None


def _size_of(path: Path) -> int:
    """Bytes of a file or of a folder's masks; 0 where that can't be known."""
    try:
        return stamp_of(path)[0]
    except OSError:
        return 0


def relative(path: Path, root: Path) -> str:
    """The path as problems name it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def speaker(
    root: Path, case: str, role: str, path: Path
) -> Callable[[str, str], Finding]:
    """Makes findings about a file, which they name by its path below the root."""

    def say(kind: str, text: str) -> Finding:
        name = relative(path, root)
        if str(path) in text:
            text = text.replace(str(path), name, 1)
        else:
            text = f"{name}: {text}"
        return Finding(kind, text, case, role, name)

    return say


def judge(
    record: Record,
    axes: tuple[int, ...] | None,
    role: str,
    say: Callable[[str, str], Finding],
    known: Facts,
    others: Mapping[str, Facts],
) -> list[Finding]:
    """Returns the problems of one decoded file; see `images.judge`, `volumes.judge`."""
    if record.is_3d:
        return volumes.judge(record, role, say, known, others, axes)
    return images.judge(record, role, say, known, others)


def _of_masks(names: _Names, facts: _ByCase) -> list[str]:
    """What is unusual in masks: warnings."""
    masks = [
        (names[case, role], case, role, known)
        for case, by_role in facts.items()
        for role, known in by_role.items()
        if role not in ("image", "posterior") and is_mask(known)
    ]
    lines = [f"{m[0]} has no foreground" for m in masks if share_of(m[-1]) == 0]
    twice = {case: k["overlap"] for _, case, _, k in masks if k.get("overlap")}
    if twice:
        lines.append(
            f"masks of single objects overlap in {len(twice)} of {len(facts)} images "
            f"({sum(twice.values())} pixels, each counted once), such as "
            f"{next(iter(twice))}"
        )
    lines += [
        f"{m[0]}/{name} is empty" for m in masks for name in m[-1].get("empty", ())
    ]
    cut = {
        c: k["mask"]["greys"]
        for _, c, r, k in masks
        if r == "observer1" and "mask" in k
    }
    greys = {case: number for case, number in cut.items() if number}
    if greys:
        lines.append(
            f"{len(greys)} of {len(facts)} masks have greys ({sum(greys.values())} "
            "pixels between 0 and 255): foreground from 128 on, such as in case "
            f"{next(iter(greys))}"
        )
    return lines + [
        f"{name} has no background"
        for name, _, role, known in masks
        if role.startswith("observer") and known.get("mask", {}).get("foreground") == 1
    ]


def _of_images(record: Record, directions: str | None, facts: _ByCase) -> list[str]:
    """What is unusual in images: warnings."""
    images = {case: roles["image"] for case, roles in facts.items() if "image" in roles}
    lines, of = [], f"of {len(facts)}"
    modes = {c: k["mode"] for c, k in images.items() if k["mode"] != "RGB"}
    if modes and record.any_mode:
        kinds = ", ".join(sorted(set(modes.values())))
        lines.append(
            f"{len(modes)} {of} images are not RGB (mode {kinds}): read as RGB, such "
            f"as {next(iter(modes))}"
        )
    doubtful = [case for case, known in images.items() if known.get("other")]
    if doubtful:
        lines.append(
            f"{len(doubtful)} {of} volumes have a qform that differs from the sform in "
            f"place or by a few degrees, such as {doubtful[0]}: the sform is taken"
        )
    runs = {case: known.get("directions") for case, known in images.items()}
    turned = [case for case, code in runs.items() if native.against(code, directions)]
    if turned:
        lines.append(
            f"{len(turned)} {of} volumes are stored mirrored, such as {turned[0]} "
            f"({runs[turned[0]]}, as distributed {directions}): they are read as they "
            "are. Copy them again from the original download"
        )
    return lines


def is_mask(known: Facts) -> bool:
    """True where there is a share of foreground to speak of."""
    return "mask" in known or bool(known.get("values"))


def share_of(known: Facts) -> float:
    """The share of foreground of a file that is a mask, in [0, 1]."""
    if "mask" in known:
        return float(known["mask"]["foreground"])
    numbers = dict(known["values"])
    return float(1 - numbers.get(0, 0) / sum(numbers.values()))


def _marked(values: Sequence[int], facts: _ByCase) -> dict[str, set[int]]:
    """The classes that observer 1 marked, by case."""
    found = {}
    for case, by_role in facts.items():
        known = by_role.get("observer1", {})
        if is_mask(known) and len(values) == 2:
            found[case] = {1} if share_of(known) else set()
        elif is_mask(known):
            seen = {value for value, number in known.get("values", []) if number}
            found[case] = {k for k, value in enumerate(values) if k and value in seen}
    return found


def summarise(report: Report, facts: _ByCase) -> None:
    """Fills in the numbers, and what tells copies of an image."""
    shares: dict[str, list[float]] = {}
    for case, by_role in facts.items():
        for role, known in by_role.items():
            report.files[role] = report.files.get(role, 0) + 1
            if role == "image":
                size = tuple(known["shape"])
                report.sizes[size] = report.sizes.get(size, 0) + 1
                report.pixels[case] = known["pixels"]
                report.turned[case] = str(known.get("turned", known["pixels"]))
            elif is_mask(known):
                seen = [value for value, _ in known.get("values", [])]
                seen = known["mask"]["values"] if "mask" in known else seen
                report.values.setdefault(role, set()).update(seen)
                shares.setdefault(role, []).append(share_of(known))
    report.foreground = {role: float(np.mean(s)) for role, s in shares.items()}
