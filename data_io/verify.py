"""Decodes every file of a data set and says all that is wrong with it at once."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_io import images, native, pool, splits, volumes
from data_io.datasets.dataset import Dataset
from data_io.datasets.folder import OwnImages
from data_io.datasets.reading import masks
from data_io.datasets.record import Record
from data_io.errors import InputError, Problems, is_text, not_text
from data_io.report import AGAIN, Finding, Report

__all__ = ["Report", "audit", "verify"]

FORMAT = 4
# Below it all is decoded before other processes would have started.
FEW_BYTES = 1 << 26
Facts = dict[str, Any]
Entry = dict[str, Any]


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

    A file decoded before is not decoded again while its path, size and time of change
    are the same; what it held is judged anew each time.

    Args:
        dataset: the data set, from `data_io.datasets.by_name`. Own images were
            looked at by `data_io.own.describe`.
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
    if isinstance(dataset, OwnImages):
        return dataset.verify(Path(root))
    record, root = dataset.record(root), Path(root)
    unread = [case for case in splits.cases(dataset, root) if not is_text(case)]
    if unread:
        raise Problems(f"{record.title} in {root}", [not_text(case) for case in unread])
    report = Report(record.title, root, counts_of(dataset, root), name=record.name)
    report.problems += [Finding("layout", text) for text in dataset.check(root)]
    facts = examine(dataset, root, state, report, progress, jobs)
    named = {problem.file for problem in report.problems if problem.file}
    # Of a folder in a file's place both are true; what was opened says more.
    report.problems = [
        problem
        for problem in report.problems
        if problem.file or problem.message.partition(": ")[0] not in named
    ]
    axes = dataset.AXES or record.axes
    for case, by_role in facts.items():
        for role, known in by_role.items():
            say = speaker(root, case, role, dataset.roles(root, case)[role])
            report.problems += judge(record, axes, role, say, known, by_role)
    summarise(report, facts)
    report.warnings += [*dataset.remarks(root), *empty(dataset, root, facts)]
    report.warnings += [*overlapping(facts), *empty_objects(dataset, root, facts)]
    report.warnings += [*converted(record, facts), *cut_at_half(facts)]
    report.warnings += [*whole(dataset, root, facts), *doubtful(facts)]
    report.warnings += mirrored(dataset.DIRECTIONS, facts)
    return report


def counts_of(dataset: Dataset, root: Path) -> dict[str, int]:
    """Number of cases by part of a fixed split, or of all that are to be split."""
    parts = dataset.split(root)
    if parts:
        return {part: len(ids) for part, ids in parts.items()}
    return {"to be split": len(splits.cases(dataset, root))}


def examine(
    dataset: Dataset,
    root: Path,
    state: Path | None,
    report: Report,
    progress: bool,
    jobs: int | None,
) -> dict[str, dict[str, Facts]]:
    """Decodes all files that are there and not known; returns facts by case and role.

    Adds to the report's problems what can't be decoded, and its counts.
    """
    todo = present(dataset, root)
    known, paths = recall(state), [path for _, _, path in todo]
    files = [(path, role) for _, role, path in todo]
    found, new = [known_entry(path, role, known) for path, role in files], []
    try:
        for index, result in decode(files, found, progress, jobs):
            found[index] = result
            new.append(index)
    finally:  # What was decoded before a stop is not decoded again.
        pairs = zip(paths, found, strict=True)
        seen = {place(path): entry for path, entry in pairs if is_entry(entry)}
        warnings = remember(state, known, seen) if new else []
    facts: dict[str, dict[str, Facts]] = {}
    for (case, role, path), entry in zip(todo, found, strict=True):
        if entry and is_entry(entry):
            facts.setdefault(case, {})[role] = entry["facts"]
        else:
            say = speaker(root, case, role, path)
            report.problems += [say("unreadable", t) for t in faults(path, entry)]
    report.decoded = sum(is_entry(found[index]) for index in new)
    report.skipped = len(paths) - len(new)
    report.warnings += warnings
    return facts


def decode(
    files: Sequence[tuple[Path, str]],
    known: Sequence[Entry | None],
    progress: bool,
    jobs: int | None,
) -> Any:
    """Decodes what is not known; yields index and entry, in no order.

    The bar counts bytes: of volumes one may be a hundred times another.
    """
    todo = [index for index, entry in enumerate(known) if entry is None]
    sizes = [size_of(files[index][0]) for index in todo]
    if jobs is None:
        jobs = pool.processors() if sum(sizes) > FEW_BYTES else 0
    bar = tqdm(
        total=sum(sizes), desc="verify", unit="B", unit_scale=True, delay=1,
        leave=False, disable=not progress,
    )  # fmt: skip
    with bar:
        for number, entry in pool.each(examined, [files[k] for k in todo], jobs):
            bar.update(sizes[number])
            yield todo[number], entry


def examined(file: tuple[Path, str]) -> Entry:
    """The entry of a file, by path and role: `stamp` and `facts`, or its `faults`."""
    path, role = file
    try:
        return {"stamp": stamp_of(path), "facts": facts_of(path, role)}
    except Problems as error:
        return {"faults": list(error.problems)}
    except InputError as error:
        return {"faults": [str(error)]}
    except Exception as error:  # A decoder may raise anything; the next file goes on.
        name = type(error).__name__
        found = f"expected a file that can be decoded, found {name} ({error})."
        return {
            "faults": [f"{path}: {found} Copy it again from the original download."]
        }


def faults(path: Path, entry: Any) -> list[str]:
    """What is wrong with a file that has no facts."""
    if isinstance(entry, pool.Crash):
        return [
            f"{path}: expected a file that can be decoded, found one that makes the "
            f"decoder crash. {AGAIN}"
        ]
    return list(entry["faults"])


def present(dataset: Dataset, root: Path) -> list[tuple[str, str, Path]]:
    """Case, role and path of every file of the data set that is there."""
    return [
        (case, role, path)
        for case in splits.cases(dataset, root)
        for role, path in dataset.roles(root, case).items()
        if path.exists()
    ]


def known_entry(path: Path, role: str, known: Mapping[str, Any]) -> Entry | None:
    """The entry that was kept of a file; None where there is none, or it changed."""
    entry: Entry | None = known.get(place(path))
    if entry is None or (role == "image" and "pixels" not in entry["facts"]):
        return None
    try:
        return entry if entry["stamp"] == stamp_of(path) else None
    except OSError:
        return None


def place(path: Path) -> str:
    """The name under which a file is remembered."""
    return str(path.resolve())


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


def stamp_of(path: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds; of a folder, total and latest.

    A file that comes into a folder or leaves it changes the folder's own time.
    """
    files = [path, *masks(path)] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    size = sum(state.st_size for state in states)
    return [size, max(state.st_mtime_ns for state in states)]


def size_of(path: Path) -> int:
    """Bytes of a file or of a folder's masks; 0 where that can't be known."""
    try:
        return stamp_of(path)[0]
    except OSError:
        return 0


def facts_of(path: Path, role: str) -> Facts:
    """What a file holds: see `data_io.images.facts` and `data_io.volumes.facts`.

    Raises:
        InputError: it can't be decoded.
    """
    if ".nii" in path.suffixes:
        return volumes.facts(path, role)
    return images.facts(path, role)


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


def empty(
    dataset: Dataset, root: Path, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning for each mask without foreground."""
    return [
        f"{relative(dataset.roles(root, case)[role], root)} has no foreground"
        for case, by_role in facts.items()
        for role, known in by_role.items()
        if role not in ("image", "posterior")
        and is_mask(known)
        and share_of(known) == 0
    ]


def overlapping(facts: Mapping[str, Mapping[str, Facts]]) -> list[str]:
    """Returns a warning where masks of single objects overlap."""
    found = [
        (case, known["overlap"])
        for case, by_role in facts.items()
        for known in by_role.values()
        if known.get("overlap")
    ]
    if not found:
        return []
    pixels = sum(number for _, number in found)
    return [
        f"masks of single objects overlap in {len(found)} of {len(facts)} images "
        f"({pixels} pixels, each counted once), such as {found[0][0]}"
    ]


def is_mask(known: Facts) -> bool:
    """True where there is a share of foreground to speak of."""
    return "mask" in known or bool(known.get("values"))


def share_of(known: Facts) -> float:
    """The share of foreground of a file that is a mask, in [0, 1]."""
    if "mask" in known:
        return float(known["mask"]["foreground"])
    numbers = dict(known["values"])
    return float(1 - numbers.get(0, 0) / sum(numbers.values()))


def converted(record: Record, facts: Mapping[str, Mapping[str, Facts]]) -> list[str]:
    """Returns a warning where images are not stored as RGB but read so."""
    modes = {
        case: by_role["image"]["mode"]
        for case, by_role in facts.items()
        if by_role.get("image", {}).get("mode", "RGB") != "RGB"
    }
    if not modes or not record.any_mode:
        return []
    kinds = ", ".join(sorted(set(modes.values())))
    return [
        f"{len(modes)} of {len(facts)} images are not RGB (mode {kinds}): read as RGB, "
        f"such as {next(iter(modes))}"
    ]


def cut_at_half(facts: Mapping[str, Mapping[str, Facts]]) -> list[str]:
    """Returns a warning where masks have greys."""
    greys = {
        case: by_role["observer1"]["mask"]["greys"]
        for case, by_role in facts.items()
        if by_role.get("observer1", {}).get("mask", {}).get("greys")
    }
    if not greys:
        return []
    return [
        f"{len(greys)} of {len(facts)} masks have greys ({sum(greys.values())} pixels "
        "between 0 and 255): foreground from 128 on, such as in case "
        f"{next(iter(greys))}"
    ]


def whole(
    dataset: Dataset, root: Path, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning for each mask without background, where that is no problem."""
    return [
        f"{relative(dataset.roles(root, case)[role], root)} has no background"
        for case, by_role in facts.items()
        for role, known in by_role.items()
        if role.startswith("observer") and known.get("mask", {}).get("foreground") == 1
    ]


def doubtful(facts: Mapping[str, Mapping[str, Facts]]) -> list[str]:
    """Returns a warning where a sform and a qform differ, but in no voxel size."""
    cases = [
        case for case, by_role in facts.items() if by_role.get("image", {}).get("other")
    ]
    if not cases:
        return []
    return [
        f"{len(cases)} of {len(facts)} volumes have a qform that differs from the "
        f"sform in place or by a few degrees, such as {cases[0]}: the sform is taken"
    ]


def mirrored(
    directions: str | None, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning where volumes run in other directions than as distributed."""
    images = {case: by_role.get("image", {}) for case, by_role in facts.items()}
    found = {case: image.get("directions") for case, image in images.items()}
    cases = [case for case, code in found.items() if native.against(code, directions)]
    if not cases:
        return []
    return [
        f"{len(cases)} of {len(facts)} volumes are stored mirrored, such as {cases[0]} "
        f"({found[cases[0]]}, as distributed {directions}): they are read as they are. "
        "Copy them again from the original download"
    ]


def empty_objects(
    dataset: Dataset, root: Path, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning for each mask of a single object without foreground."""
    return [
        f"{relative(dataset.roles(root, case)[role], root)}/{name} is empty"
        for case, by_role in facts.items()
        for role, known in by_role.items()
        for name in known.get("empty", [])
    ]


def summarise(report: Report, facts: Mapping[str, Mapping[str, Facts]]) -> None:
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


def recall(state: Path | None) -> dict[str, dict[str, Any]]:
    """Reads what was decoded before; nothing where the file is missing or damaged."""
    try:
        kept = json.loads(state.read_text("utf-8")) if state else {}
        files = kept["files"] if kept.get("format") == FORMAT else {}
        return {place: entry for place, entry in files.items() if is_entry(entry)}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def is_entry(entry: Any) -> bool:
    """True for what `examined` makes of a sound file, as JSON gives it back."""
    try:
        facts = entry["facts"]
        return (
            [type(number) for number in entry["stamp"]] == [int, int]
            and isinstance(facts["mode"], str)
            and len(facts["shape"]) in (2, 3)
            and all(len(pair) == 2 for pair in facts.get("values", []))
        )
    except (AttributeError, KeyError, TypeError):
        return False


def remember(
    state: Path | None, known: Mapping[str, Any], seen: Mapping[str, Any]
) -> list[str]:
    """Writes what was decoded, aside and renamed; returns a warning where it can't."""
    if state is None:
        return []
    kept = {place: entry for place, entry in known.items() if Path(place).exists()}
    text = json.dumps({"format": FORMAT, "files": {**kept, **seen}})
    aside = state.with_name(f".{state.name}.{os.getpid()}")
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, "utf-8")
        aside.replace(state)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        return [f"{state} can't be written ({error}): next time all is decoded again"]
    return []
