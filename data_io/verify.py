"""Decodes every file of a data set and says all that is wrong with it at once."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from data_io import splits, volumes
from data_io.datasets.reading import (
    as_binary,
    as_rgb,
    decode,
    has_two_values,
    is_colour,
    masks,
    one_channel,
    union,
)
from data_io.datasets.record import Record
from data_io.errors import InputError

__all__ = ["Report", "verify"]

FORMAT = 2
MOST_SIZES = 4  # that a report names
AGAIN = "Copy it again from the original download."
Facts = dict[str, Any]


@dataclass
class Report:
    """What was found in a data set without problems.

    Attributes:
        title: of the data set.
        root: its folder.
        counts: cases by part of a fixed split, or of all that are to be split.
        files: number of files looked at, by role.
        sizes: number of images, by spatial shape.
        values: the distinct values (or palette indices) seen in masks, by role.
        foreground: mean share of foreground pixels in masks, by role, in [0, 1].
        decoded: files decoded now.
        skipped: files decoded before and unchanged since.
        warnings: what is unusual but stops nothing.
    """

    title: str
    root: Path
    counts: dict[str, int]
    files: dict[str, int] = field(default_factory=dict)
    sizes: dict[tuple[int, ...], int] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    foreground: dict[str, float] = field(default_factory=dict)
    decoded: int = 0
    skipped: int = 0
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {part}" for part, n in self.counts.items())
        commonest = sorted(self.sizes.items(), key=lambda pair: -pair[1])
        sizes = ", ".join(f"{n} of {shown(s)}" for s, n in commonest[:MOST_SIZES])
        others = sum(n for _, n in commonest[MOST_SIZES:])
        sizes += f" and {others} of other sizes" if others else ""
        lines = [
            f"{self.title} in {self.root}: all is well",
            f"  cases   {sum(self.counts.values())} ({parts})",
        ]
        lines += [f"  images  {sizes}"] if sizes else []
        for role, values in self.values.items():
            seen = ", ".join(str(value) for value in sorted(values))
            share = f"{100 * self.foreground[role]:.1f} % foreground"
            lines.append(f"  {role}  {self.files[role]} files, values {seen}, {share}")
        if self.decoded or self.skipped:
            lines.append(
                f"  decoded {self.decoded}, unchanged since last time {self.skipped}"
            )
        return "\n".join(lines + [f"  warning: {text}" for text in self.warnings])


def verify(
    dataset: ModuleType, root: Path, state: Path | None = None, progress: bool = True
) -> Report:
    """Decodes every file of a data set and compares it with the record.

    A file decoded before is not decoded again while its path, size and time of change
    are the same; what it held is judged anew each time.

    Args:
        dataset: module of the data set, from `data_io.datasets.by_name`. One that has
            a `verify(root)` of its own is left to it.
        root: its folder, from `dataset.locate`.
        state: JSON file that remembers what was decoded; None to decode everything.
        progress: shows a bar on stderr when it takes a while.

    Returns:
        Counts, sizes and label values.

    Raises:
        InputError: one message with all problems, a line each: which file, expected,
            found, what to do.
    """
    if hasattr(dataset, "verify"):
        report: Report = dataset.verify(Path(root))
        return report
    record, root = dataset.record(root), Path(root)
    problems = list(dataset.check(root))
    report = Report(record.title, root, counts_of(dataset, root))
    facts = examine(dataset, root, state, report, problems, progress)
    for case, by_role in facts.items():
        for role, known in by_role.items():
            path = dataset.roles(root, case)[role].relative_to(root)
            problems += judge(record, role, str(path), known, by_role)
    if problems:
        raise InputError(message(record, root, problems))
    summarise(report, facts)
    report.warnings += [*dataset.remarks(root), *empty(dataset, root, facts)]
    report.warnings += [*overlapping(facts), *empty_objects(dataset, root, facts)]
    report.warnings += [*converted(record, facts), *cut_at_half(facts)]
    return report


def counts_of(dataset: ModuleType, root: Path) -> dict[str, int]:
    """Number of cases by part of a fixed split, or of all that are to be split."""
    parts = dataset.split(root) if hasattr(dataset, "split") else {}
    if parts:
        return {part: len(ids) for part, ids in parts.items()}
    return {"to be split": len(splits.cases(dataset, root))}


def examine(
    dataset: ModuleType,
    root: Path,
    state: Path | None,
    report: Report,
    problems: list[str],
    progress: bool,
) -> dict[str, dict[str, Facts]]:
    """Decodes all files that are there and not known; returns facts by case and role.

    Adds to `problems` what can't be decoded, and counts in `report`.
    """
    known, seen = recall(state), {}
    facts: dict[str, dict[str, Facts]] = {}
    todo = present(dataset, root)
    bar = tqdm(todo, "verify", unit="file", delay=1, leave=False, disable=not progress)
    for case, role, path in bar:
        try:
            entry = known_or_decoded(path, known)
        except InputError as error:
            problems.append(str(error).replace(str(path), relative(path, root), 1))
            continue
        facts.setdefault(case, {})[role] = entry["facts"]
        seen[str(path.resolve())] = entry
    report.skipped = sum(known.get(place) is entry for place, entry in seen.items())
    report.decoded = len(seen) - report.skipped
    if report.decoded:
        report.warnings += remember(state, known, seen)
    return facts


def present(dataset: ModuleType, root: Path) -> list[tuple[str, str, Path]]:
    """Case, role and path of every file of the data set that is there."""
    return [
        (case, role, path)
        for case in splits.cases(dataset, root)
        for role, path in dataset.roles(root, case).items()
        if path.exists()
    ]


def known_or_decoded(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entry of a file: the one kept where it is unchanged, else a new one.

    Raises:
        InputError: it can't be decoded.
    """
    entry, stamp = known.get(str(path.resolve())), stamp_of(path)
    if entry and entry["stamp"] == stamp:
        return entry
    return {"stamp": stamp, "facts": facts_of(path)}


def relative(path: Path, root: Path) -> str:
    """The path as problems name it."""
    return str(path.relative_to(root))


def stamp_of(path: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds; of a folder, total and latest.

    A file that comes into a folder or leaves it changes the folder's own time.
    """
    files = [path, *masks(path)] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    size = sum(state.st_size for state in states)
    return [size, max(state.st_mtime_ns for state in states)]


def facts_of(path: Path) -> Facts:
    """What a file holds, as JSON can keep it.

    Returns:
        `mode`, `shape` (rows, columns), and for one channel of whole numbers `values`,
        pairs of a value and its number of pixels (at most 9); for an array of floats
        `range`. A folder of masks has the mode `masks`, the facts of their union,
        `overlap`, the number of pixels in several of them, and the names of those that
        are `empty`. What can be read as RGB has `rgb` (True), what can be read as a
        mask `mask` (see `mask_facts`). Of a volume see `data_io.volumes.facts`.

    Raises:
        InputError: it can't be decoded.
    """
    if path.is_dir() and not path.suffix:  # named like a file, it is in a file's place
        pixels, overlap, empty = union(path)
        more: Facts = {"overlap": overlap, "empty": empty}
        return {**facts_of_pixels("masks", pixels), **more}
    if ".nii" in path.suffixes:
        return volumes.facts(path)
    mode, pixels = decode(path) if path.suffix != ".npy" else decode_array(path)
    return facts_of_pixels(mode, pixels)


def facts_of_pixels(mode: str, pixels: np.ndarray) -> Facts:
    """The facts of a decoded file, see `facts_of`."""
    found: Facts = {"mode": mode, "shape": list(pixels.shape[:2])}
    if is_colour(mode, pixels):
        found["mode"] = "RGB"
    elif mode == "RGBA":
        found["mode"] = "RGBA with transparent pixels"
    if pixels.dtype.kind == "f":
        found["range"] = [float(pixels.min()), float(pixels.max())]
    elif pixels.ndim == 2:
        values, numbers = np.unique(pixels, return_counts=True)
        pairs = zip(values.tolist(), numbers.tolist(), strict=True)
        found["values"] = [[int(v), n] for v, n in pairs][:9]
    # Palettes are read as colours, whatever their indices.
    found["rgb"] = mode == "P" or as_rgb(mode, pixels) is not None
    mask = mask_facts(mode, pixels)
    return {**found, "mask": mask} if mask else found


def mask_facts(mode: str, pixels: np.ndarray) -> Facts:
    """What a file is as a mask, see `data_io.datasets.reading.as_binary`.

    Returns:
        `values` of its one channel, 0 and at most one other, or [] where there are
        more; `foreground`, the share of such pixels in [0, 1]; `greys`, how many pixels
        were cut at half that are neither 0 nor 255. {} where it can't be a mask.
    """
    binary, grey = as_binary(mode, pixels), one_channel(mode, pixels)
    if binary is None or grey is None:
        return {}
    exact = has_two_values(grey)
    return {
        "values": sorted({int(grey.min()), int(grey.max())}) if exact else [],
        "foreground": float(binary.mean()),
        "greys": 0 if exact else int(((grey > 0) & (grey < 255)).sum()),
    }


def decode_array(path: Path) -> tuple[str, np.ndarray]:
    """Reads an array of floats.

    Raises:
        InputError: not a whole `.npy` file of finite floats.
    """
    try:
        array = np.load(path, allow_pickle=False)
        if array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            return "float", array
        found = f"{array.dtype} of shape {array.shape}, or not finite"
    except (OSError, ValueError, EOFError) as error:
        found = str(error)
    raise InputError(
        f"{path}: expected a whole .npy file of finite floats, found: {found}. "
        "Delete the data set's folder; it is generated again."
    )


def judge(
    record: Record, role: str, name: str, known: Facts, others: Mapping[str, Facts]
) -> list[str]:
    """Returns the problems of one decoded file.

    Args:
        record: of the data set.
        role: `image`, `posterior`, or else a mask.
        name: the file, as the message names it.
        known: its facts.
        others: facts of all files of the case, by role.
    """
    if record.is_3d:
        return volumes.judge(record, role, name, known, others)
    expected = record.raw_shape or others.get("image", known)["shape"]
    problems = []
    if list(expected) != known["shape"]:
        pair = "" if role == "image" else ", the size of its image"
        problems.append(
            f"{name}: expected {shown(expected)}{pair}, found "
            f"{shown(known['shape'])}. {AGAIN}"
        )
    if role == "image":
        return problems + judge_image(record, name, known)
    if role == "posterior":
        return problems + judge_posterior(name, known)
    return problems + judge_mask(record, name, known)


def judge_image(record: Record, name: str, known: Facts) -> list[str]:
    """Returns a problem where the image has not the record's channels."""
    mode = {1: "L", 3: "RGB"}[record.channels]
    if known["mode"] == mode or (record.any_mode and known["rgb"]):
        return []
    return [f"{name}: expected an {mode} image, found mode {known['mode']}. {AGAIN}"]


def judge_posterior(name: str, known: Facts) -> list[str]:
    """Returns a problem where probabilities are not probabilities."""
    low, high = known.get("range", (-1, -1))
    if 0 <= low <= high <= 1:
        return []
    return [
        f"{name}: expected probabilities in [0, 1], found {low:g} to {high:g}. "
        "Delete the data set's folder; it is generated again."
    ]


def judge_mask(record: Record, name: str, known: Facts) -> list[str]:
    """Returns a problem where a mask is not binary.

    With `Record.grey_masks`: where it can't be made binary.

    Binary: the value 0 and at most one other, whichever. So 0/255 in a grey image and
    0/1 in a palette image are both well, 0/1/2 and grey edges are not, and neither is
    a mask that is foreground everywhere.
    """
    if record.grey_masks and "mask" in known:
        return []
    if "values" not in known:
        return [
            f"{name}: expected a mask of one channel, found mode {known['mode']}. "
            + AGAIN
        ]
    values = [value for value, _ in known["values"]]
    if len(values) <= 2 and values[0] == 0:
        return []
    some = ", ".join(str(value) for value in values[:8])
    more = ", ..." if len(values) > 8 else ""
    return [
        f"{name}: expected a binary mask, 0 and one other value, found the values "
        f"{some}{more}. {AGAIN}"
    ]


def empty(
    dataset: ModuleType, root: Path, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning for each mask without foreground."""
    return [
        f"{relative(dataset.roles(root, case)[role], root)} has no foreground"
        for case, by_role in facts.items()
        for role, known in by_role.items()
        if role not in ("image", "posterior") and share_of(known) == 0
    ]


def share_of(known: Facts) -> float:
    """The share of foreground of a file that is a mask, in [0, 1]."""
    if "mask" in known:
        return float(known["mask"]["foreground"])
    numbers = dict(known["values"])
    return float(1 - numbers[0] / sum(numbers.values()))


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


def empty_objects(
    dataset: ModuleType, root: Path, facts: Mapping[str, Mapping[str, Facts]]
) -> list[str]:
    """Returns a warning for each mask of a single object without foreground."""
    return [
        f"{relative(dataset.roles(root, case)[role], root)}/{name} is empty"
        for case, by_role in facts.items()
        for role, known in by_role.items()
        for name in known.get("empty", [])
    ]


def summarise(report: Report, facts: Mapping[str, Mapping[str, Facts]]) -> None:
    """Fills in the numbers of a data set without problems."""
    shares: dict[str, list[float]] = {}
    for by_role in facts.values():
        for role, known in by_role.items():
            report.files[role] = report.files.get(role, 0) + 1
            if role == "image":
                size = tuple(known["shape"])
                report.sizes[size] = report.sizes.get(size, 0) + 1
            elif "values" in known or "mask" in known:
                seen = [value for value, _ in known.get("values", [])]
                seen = known["mask"]["values"] if "mask" in known else seen
                report.values.setdefault(role, set()).update(seen)
                shares.setdefault(role, []).append(share_of(known))
    report.foreground = {role: float(np.mean(s)) for role, s in shares.items()}


def message(record: Record, root: Path, problems: list[str]) -> str:
    """One message for all problems."""
    count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
    lines = [f"{record.title} in {root}: {count}."]
    lines += [f"  {number}. {text}" for number, text in enumerate(problems, 1)]
    return "\n".join(lines)


def shown(shape: Any) -> str:
    """A spatial shape in words."""
    axes = ("slices", "rows", "columns")[-len(shape) :]
    parts = zip(shape, axes, strict=True)
    return " x ".join(f"{size} {axis}" for size, axis in parts)


def recall(state: Path | None) -> dict[str, dict[str, Any]]:
    """Reads what was decoded before; nothing where the file is missing or damaged."""
    try:
        kept = json.loads(state.read_text("utf-8")) if state else {}
        files = kept["files"] if kept.get("format") == FORMAT else {}
        return {place: entry for place, entry in files.items() if is_entry(entry)}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def is_entry(entry: Any) -> bool:
    """True for what `known_or_decoded` makes, as JSON gives it back."""
    facts = entry["facts"]
    return (
        [type(number) for number in entry["stamp"]] == [int, int]
        and isinstance(facts["mode"], str)
        and len(facts["shape"]) in (2, 3)
        and all(len(pair) == 2 for pair in facts.get("values", []))
    )


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
        return [f"{state} can't be written ({error}): next time all is decoded again"]
    return []
