"""The probabilities that a run keeps beside its measures; not in git.

A run after scaling keeps none: they are those of the run beside it, scaled. Nor does an
ensemble: they are the mean of those of its members, beside it.
"""

import functools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from data_io import bars
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import nifti, schema
from data_io.files.hashing import file_hash, while_unchanged
from data_io.prepare import native_grid
from pipelines.posthoc import maps
from pipelines.runs import run as runs
from pipelines.runs import written
from pipelines.runs.record import MeasuredSet

DERIVED = ("nifti", "pictures")
"""Folders of a run: label maps, and pictures, made of its probabilities."""

PROBABILITIES = "probabilities"
LIST = f"{PROBABILITIES}/{written.LIST}"
"""The SHA-256 of a run's probabilities; `run.json` has that of the list."""

SPLITS = ("validation", "test")
_THRESHOLDS = "threshold-[0-9]*.csv"  # see `evaluate.threshold_file`
_SLICES = 16  # looked at together
_SLACK, _SUM_SLACK = 1e-5, 1e-2  # as the measures take them

SMALLEST = float(np.finfo(np.float32).tiny)
"""A softmax in float32 ends here; beyond, the logit is not known."""

_Array = npt.NDArray[Any]


def cases(run: runs.Run) -> list[tuple[str, str]]:
    """Return all predicted cases, as pairs of the part of the split and the case."""
    return [(part, case) for part in SPLITS for case in run.record["split"][part]]


def require_free(run: runs.Run) -> None:
    """Refuse to rewrite probabilities that have other files among them.

    Raises:
        InputError: a file that is no case's.
    """
    expected = {written.LIST, *(f"{case}.npy" for _, case in cases(run))}
    unexpected = {path.name for path in run.path(PROBABILITIES).glob("*")} - expected
    if unexpected:
        raise InputError(
            f"{run.path(PROBABILITIES)}: expected the probabilities of the run's cases "
            f"alone, found {', '.join(sorted(unexpected)[:3])}, which would be "
            "deleted; move it away"
        )


def path(run: runs.Run, case: str) -> Path:
    """Return the file of a case's probabilities."""
    return run.path(PROBABILITIES) / f"{case}.npy"


def probabilities(run: runs.Run, case: str, shape: tuple[int, ...]) -> _Array:
    """Read a case's probabilities.

    Args:
        run: a run in state "predicted" or past it, with its local files.
        case: the case's id.
        shape: the spatial shape they must have: the native one; of a volume that of the
            network's grid.

    Returns:
        Softmax values, (*shape, C), float32, memory-mapped; of a run after
        scaling those of the run that it was fitted on, scaled; of an ensemble the mean
        of its members'.

    Raises:
        InputError: the file is missing, damaged, of another shape or type, holds no
            probabilities (outside [0, 1], NaN, or not summing to 1), or is not the one
            that the run wrote. A run of before the list was kept says so once.
    """
    posthoc = run.record.get("posthoc", {})
    if "members" in posthoc:
        kept = [probabilities(member, case, shape) for member in _origins(run)]
        return averaged(kept, posthoc["mean"])
    if "probabilities" in posthoc:
        (origin,) = _origins(run)
        return scaled(probabilities(origin, case, shape), run)
    file = path(run, case)
    try:
        # Not by `np.load`, which gives an archive of arrays for an .npz so named.
        values = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file}: expected the probabilities of case {case}, found none that can "
            f"be read ({error}). They are not kept in git: run `{run.remake()}` where "
            "the weights are"
        ) from error
    classes = run.record.get("classes")  # runs of before they were kept have none
    number = len(classes) if classes else (0, *values.shape)[-1]
    wrong = _wrong(values, (*shape, number))
    if wrong:
        raise InputError(f"{file}: expected {wrong}; run `{run.remake()}`")
    _require_own(run, file)
    return np.asarray(values)


def _origins(run: runs.Run) -> Iterator[runs.Run]:
    """Yield the runs that a scaled run or an ensemble was made of.

    Raises:
        InputError: one is gone, or its probabilities were written anew.
    """
    for name, expected in sources(run).items():
        folder = run.folder.absolute().with_name(name)
        origin = _opened(folder / runs.RECORD)
        if listed(origin) != expected:
            raise InputError(
                f"{origin.folder}: expected the probabilities that {run.name} was made "
                f"from, found others; run `{run.remake()}`"
            )
        yield origin


@while_unchanged(32)
def _opened(record: Path) -> runs.Run:
    """Open a run by its record: once, not for each of its cases."""
    return runs.Run.open(record.parent)


def discard_derived(run: runs.Run) -> None:
    """Delete what was made from a run's former probabilities, and print its names.

    These are measures at thresholds and of corrupted images, label maps and pictures;
    and measures on other sets, where they are of other weights or scaled otherwise.
    What is not as it was written stays, and is named. `cases.csv` is left to the next
    evaluation.

    The caller holds the run; its probabilities are others than before, its record still
    has the hashes of what was made of those.
    """
    files = run.record.get("files", {})
    tables = [*sorted(run.folder.glob(_THRESHOLDS)), *run.folder.glob(runs.SHIFT)]
    gone = _discard({path: files.get(path.name) for path in tables})
    for folder in map(run.path, DERIVED):
        known_files, changed = written.known(folder), written.discard(folder)
        gone += [folder] if len(changed) < len(known_files) else []
        _note_kept(folder / name for name in changed)
    for set_file in sorted(run.path(runs.OTHER_SETS).glob("*/set.json")):
        gone += _discard_set(set_file, run)
    if gone:
        bars.note(
            "  note     deleted, as they were of the probabilities before: "
            f"{', '.join(map(str, gone))}"
        )


def _discard(hashes: Mapping[Path, str | None]) -> list[Path]:
    """Delete the files with the expected SHA-256; keep and name the others."""
    unchanged = [path for path, expected in hashes.items() if is_as(path, expected)]
    for path in unchanged:
        path.unlink()
    _note_kept(path for path in hashes if path not in unchanged)
    return unchanged


def is_as(path: Path, expected: str | None) -> bool:
    """Return whether a file is there with the expected SHA-256."""
    return expected is not None and path.is_file() and file_hash(path) == expected


def _note_kept(paths: Iterable[Path]) -> None:
    for path in paths:
        bars.note(
            f"  note     {path} is not as it was written and stays, but it may be of "
            "the probabilities before"
        )


def _discard_set(set_file: Path, run: runs.Run) -> list[Path]:
    """Delete the measures on another set if they are of former probabilities."""
    measured_set, folder = schema.recall(set_file, MeasuredSet) or {}, set_file.parent
    weights = run.record.get("files", {}).get(runs.MODEL)
    if measured_set and not run.method and measured_set.get("model") == weights:
        return []
    hashes = measured_set.get("files", {})
    files = {
        path: hashes.get(path.name) for path in folder.iterdir() if path != set_file
    }
    if not measured_set or not all(is_as(path, files[path]) for path in files):
        _note_kept([folder])
        return []
    shutil.rmtree(folder)
    return [folder]


def listed(run: runs.Run) -> str:
    """Return the SHA-256 of the list of a run's probabilities; "" without a list.

    Of an ensemble one over the lists of its members.
    """
    if run.members:
        return schema.digest(run.record["posthoc"]["members"])
    return str(run.record.get("files", {}).get(LIST, ""))


def sources(run: runs.Run) -> dict[str, str]:
    """Return `listed` of each run that a run was made of, by name; {} if unknown."""
    posthoc = run.record.get("posthoc", {})
    if "probabilities" in posthoc:
        return {run.origin: posthoc["probabilities"]}
    return dict(posthoc.get("members", {}))


def averaged(members: Sequence[npt.ArrayLike], mean: str) -> _Array:
    """Average the probabilities of several networks, block by block.

    Args:
        members: probabilities of each, (*spatial, C), in [0, 1].
        mean: "probabilities", or "logits" for the softmax of the mean logits; a p below
            the smallest normal float32 counts as that there.

    Returns:
        float32, (*spatial, C).
    """
    arrays = [np.asarray(member) for member in members]
    result = np.empty(arrays[0].shape, np.float32)
    for start in range(0, len(result), _SLICES):
        part = slice(start, start + _SLICES)
        blocks = (array[part].astype(np.float64) for array in arrays)
        if mean == "logits":
            logits = sum(np.log(np.maximum(block, SMALLEST)) for block in blocks)
            result[part] = special.softmax(logits / len(arrays), axis=-1)
        else:
            result[part] = sum(blocks) / len(arrays)
    return result


def scaled(softmax: npt.ArrayLike, run: runs.Run) -> _Array:
    """Scale probabilities by what a run has fitted; return them as they are without."""
    fitted = run.record.get("posthoc", {})
    if "maps" in fitted:
        return maps.softmax(run.last_method, softmax, fitted["maps"])
    if "temperature" in fitted:
        return scale(softmax, fitted["temperature"])
    return np.asarray(softmax)


def scale(softmax: npt.ArrayLike, temperature: float) -> _Array:
    """Divide the logits behind probabilities by a temperature.

    Args:
        softmax: probabilities, (*spatial, C), in [0, 1], with sum 1 over the classes.
        temperature: T, above 0.

    Returns:
        p^(1/T), divided by its sum over the classes: float32, (*spatial, C). A p
        below the smallest normal float32 counts as that.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}.")
    logits = np.log(np.maximum(np.asarray(softmax, np.float32), SMALLEST))
    logits /= np.float32(temperature)
    logits -= logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits, out=logits)
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def _require_own(run: runs.Run, file: Path) -> None:
    """Refuse a file that the run did not write, by its SHA-256."""
    sums = run.path(LIST)
    expected = run.record.get("files", {}).get(LIST)
    if expected is None and not sums.exists():
        _say(
            f"  note     {run.path(PROBABILITIES)} is of a version that kept no list "
            "of SHA-256: shape and values are checked, not whether the files are the "
            f"run's own; `{run.remake()}` writes them with the list"
        )
        return
    if not sums.is_file() or _hash(sums) != expected:
        raise InputError(
            f"{sums}: expected the list of probabilities that {runs.RECORD} has the "
            f"hash of, found {'another' if sums.is_file() else 'none'}; "
            f"run `{run.remake()}`"
        )
    if _hash(file) not in _known(sums).get(file.name, []):
        raise InputError(
            f"{file}: expected the probabilities that the run wrote, found others than "
            f"{written.LIST} beside them has the hash of; run `{run.remake()}`"
        )


@while_unchanged(8)
def _known(sums: Path) -> dict[str, list[str]]:
    """Read a list once, not for each of its files."""
    return written.known(sums.parent)


@while_unchanged(None)
def _hash(path: Path) -> str:
    return file_hash(path)


_say = functools.cache(bars.note)  # once in a process


def as_kept(run: runs.Run, module: Dataset, root: Path, case: str) -> _Array:
    """Read a case's probabilities as the run keeps them.

    Returns:
        Softmax values, float32, memory-mapped: of an image (*native shape, C), of a
        volume (*network's grid, C).

    Raises:
        InputError: as `probabilities`.
    """
    if module.record(root).is_3d:
        return volume(run, module, root, case)[0]
    label = next(iter(module.references(root, case).values()))
    return probabilities(run, case, label.shape)


def _wrong(values: _Array, shape: tuple[int, ...]) -> str:
    """Return why an array is not probabilities of this shape; "" if it is."""
    if values.shape != shape:
        return f"shape {shape}, the last classes, found {values.shape}"
    if values.dtype != np.float32:
        return f"float32, found {values.dtype}"
    for start in range(0, len(values), _SLICES):
        part = values[start : start + _SLICES]
        low, high = float(part.min()), float(part.max())
        if not -_SLACK <= low <= high <= 1 + _SLACK:
            return f"probabilities in [0, 1], found {low:g} to {high:g}"
        off = float(np.abs(part.sum(axis=-1) - 1).max())
        if off > _SUM_SLACK:
            return f"probabilities that sum to 1, found a sum off by {off:g}"
    return ""


def volume(
    run: runs.Run, module: Dataset, root: Path, case: str
) -> tuple[_Array, nifti.Geometry]:
    """Read a volume's probabilities, which are on the network's grid.

    Returns:
        Softmax values, (*network's grid, C), float32, memory-mapped; and where the
        volume's own voxels lie.

    Raises:
        InputError: as `probabilities`.
    """
    geometry = module.geometry(root, case)
    if geometry is None:
        raise ValueError(f"case {case}: expected a volume, found an image")
    spacing_mm = run.record["preprocessing"].get("spacing_mm", geometry.spacing_mm)
    shape = native_grid.resampled_shape(geometry.shape, geometry.spacing_mm, spacing_mm)
    return probabilities(run, case, shape), geometry


def slabs(
    run: runs.Run, module: Dataset, root: Path, case: str, shape: tuple[int, ...]
) -> Iterable[tuple[Any, _Array]]:
    """Read a case's probabilities at native resolution, of volumes slab by slab.

    `shape` is the native spatial one, from its label.

    Returns:
        where, an index of a volume's last axis (of an image all of it); softmax values
        there, (*spatial, C), float32.

    Raises:
        InputError: as `probabilities`.
    """
    is_3d = module.record(root).is_3d
    if is_3d:
        softmax, _ = volume(run, module, root, case)
    else:
        softmax = probabilities(run, case, shape)
    return native(softmax, is_3d, shape)


def native(
    softmax: _Array, is_3d: bool, shape: tuple[int, ...]
) -> Iterable[tuple[Any, _Array]]:
    """Return probabilities at native resolution as `slabs` does; `shape` is native."""
    return native_grid.slabs(softmax, shape) if is_3d else [(..., softmax)]
