"""A trained network on other images: predict them, or measure it on them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_io import bars, datasets, splits
from data_io.datasets.folder import ABOUT, own_images
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.files import hashing, nifti, schema
from data_io.files.names import is_formula
from data_io.own_images import describe
from pipelines.environment import backend, commits, installed, provenance
from pipelines.posthoc import decision as decision_file
from pipelines.posthoc import scaling
from pipelines.prediction import evaluate, export
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.runs.record import MeasuredSet
from pipelines.training import protocol
from pipelines.training.protocol import Protocol

if TYPE_CHECKING:  # What can be refused without a backend is, before one is imported.
    import keras

    from data_io.prepare.preprocessing import Settings

_SET = (*runs.MEASURES, "set.json")  # files of another set
_CHANNELS = (1, 3)  # of own images: grey or RGB

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trained:
    """A network and how its images are prepared.

    Attributes:
        model: the network.
        settings: the preprocessing.
        protocol: that of its training; of a model alone its input shape is known.
        classes: names of the classes, background first.
        run: by what it has fitted its probabilities are scaled; None: by nothing.
        temperature: of a decision file; its probabilities are scaled by it last.
    """

    model: keras.Model
    settings: Settings
    protocol: Protocol
    classes: tuple[str, ...]
    run: runs.Run | None = None
    temperature: float = 1.0

    def scaled(self, decision: decision_file.Decision) -> Trained:
        """Return the network with the temperature of a decision file.

        One made from a run takes the place of the network's own scaling; one made from
        files scales what the network gives after it.
        """
        before = self.run if decision["inputs"]["kind"] == "files" else None
        return dataclasses.replace(
            self, run=before, temperature=decision["temperature"]
        )

    def scale(self, softmax: _Array) -> _Array:
        """Scale what the network gives, (*spatial, C)."""
        scaled = predictions.scaled(softmax, self.run) if self.run else softmax
        if self.temperature == 1:
            return scaled
        return predictions.scale(scaled, self.temperature)

    def record(self) -> Record:
        """Return what the network requires of images, as a record."""
        return dataclasses.replace(
            own_images.RECORD,
            classes=self.classes,
            channels=int(self.model.input_shape[-1]),
            input_shape=self.settings.input_shape,
            **self.settings.shared(),
        )


def open_model(path: Path) -> Trained:
    """Open a run's network, or a Keras model by itself.

    Args:
        path: a run folder, or a `.keras` file. `run.json` beside it says how images are
            prepared and what the classes are called; without it images are resized to
            the network's input and z-scored, as in this project. Of a run after
            scaling the network is that of the run it was made from.

    Raises:
        InputError: no model, a damaged one, other weights than the run's, or without
            `run.json` a network for volumes, whose voxel size it alone knows, one of
            no fixed input size, or one that does not go from grey or RGB images to two
            classes or more.
    """
    from data_io.prepare.preprocessing import Settings
    from pipelines.training import predict

    file = path / runs.MODEL if path.is_dir() else path
    if runs.is_run(file.parent) and file.name == runs.MODEL:
        run = runs.Run.open(file.parent)
        origin = scaling.trained(run)
        values = protocol.from_dict(run.record["settings"])
        model = predict.load(origin.path(runs.MODEL), origin, values)
        settings = Settings.from_dict(run.record["preprocessing"])
        # Older runs have the classes of the data set.
        named = run.record.get("classes")
        named = named or datasets.by_name(run.record["dataset"]).RECORD.classes
        return Trained(model, settings, values, tuple(named), run)
    model = predict.read_model(file)
    _require_alone(file, model)
    shape = tuple(model.input_shape[1:-1])
    number = int(model.output_shape[-1])
    classes = ("background", *map(str, range(1, number)))
    return Trained(model, Settings(shape), Protocol(shape), classes)


def _require_alone(file: Path, model: keras.Model) -> None:
    """Refuse a network that can't be used without its run."""
    inputs, outputs = (
        [tuple(tensor.shape) for tensor in tensors or []]
        for tensors in (model.inputs, model.outputs)
    )
    fits = [(len(shape), shape[-1] in _CHANNELS) for shape in inputs] == [(4, True)]
    if fits and None not in (size := inputs[0][1:-1]):
        same_size = [shape[1:-1] for shape in outputs] == [size]
        if same_size and outputs[0][-1] not in (None, 1):
            return
    shapes = (" and ".join(map(str, shapes)) or "none" for shapes in (inputs, outputs))
    raise InputError(
        f"{file}: expected {runs.RECORD} beside it, or a network that takes (batch, "
        "rows, columns, channels) of one size, with 1 channel (grey) or 3 (RGB), and "
        "gives each pixel a probability for each of two classes or more, background "
        f"first; found one from {' to '.join(shapes)}. Give the run's folder: it says "
        "how volumes and images of other sizes are prepared; or another network."
    )


def predict_images(
    model: Path,
    images: Path,
    output: Path,
    threshold: float | None = None,
    work: Path = runs.WORK,
    volume_probabilities: bool = False,
    pictures: bool = False,
    decision: decision_file.Decision | None = None,
) -> list[Path]:
    """Predict images that need no label maps: see `export.files_of`.

    What can be refused without a backend is refused before one is imported. What an
    earlier call with other options wrote of these images, such as pictures, is deleted.
    Return the label files.

    Args:
        model: as for `open_model`.
        images: a file or a folder of files.
        output: the folder to write to, made where it is missing.
        threshold: see `export.labels`.
        work: where the look at the images is remembered.
        volume_probabilities: write those of volumes too, which are large.
        pictures: draw each case too, see `export.write_pictures`.
        decision: its threshold takes the place of another; see `Trained.scaled`.
            `volumes.csv` has the volume of each class to expect, in voxels; the
            decision is kept beside it.

    Raises:
        InputError: bad images, a bad model, or an output folder that cannot be written,
            lies among images, label maps or a run's files, or has a file of a name to
            be written that no prediction wrote, or that was changed since.
    """
    writer = _Writer(output, threshold, volume_probabilities, pictures, decision)
    installed.require_training()
    written.require_apart("--output", output, _taken(model, images, output))
    written.require_own(output, _names(model, images, writer))
    require_model(model)
    if decision:
        decision_file.require_network(decision, model, _run_of(model))
    backend.start(work)
    trained = open_model(model)
    if decision:
        decision_file.require_classes(decision, trained.classes, model)
        trained = trained.scaled(decision)
    described = describe.describe(images, None, work, like=trained.record())
    return writer.write(trained, described.root)


def require_model(model: Path, option: str = "") -> None:
    """Refuse what is no network, as far as it can be told without a backend."""
    if runs.is_run(model):
        model = scaling.trained(runs.Run.open(model)).folder
    if not (model / runs.MODEL if model.is_dir() else model).is_file():
        raise InputError(
            f"{option}{model}: expected a run folder with its weights, {runs.MODEL}, "
            "or a .keras file, found none. Weights are not kept in git: train again "
            "into another --output to have them"
        )


def _taken(model: Path, images: Path, output: Path) -> set[Path]:
    """Return folders that predictions must not go to: images, a run's own data."""
    beside = images.is_file() and output.resolve() == images.parent.resolve()
    taken = {images.parent if beside else images}
    run = _run_of(model)
    described = run.trained / runs.OWN_DATA if run else None
    if described and (described / ABOUT).is_file():
        taken |= own_images.places(own_images.locate(described))
    return taken


def _run_of(model: Path) -> runs.Run | None:
    """Return the run in whose folder a network lies."""
    folder = model if model.is_dir() else model.parent
    return runs.Run.open(folder) if runs.is_run(folder) else None


def _names(model: Path, images: Path, writer: _Writer) -> list[str]:
    run, names = _run_of(model), list(decision_file.WRITTEN if writer.decision else ())
    numbers = run.record.get("preprocessing", {}).get("modalities") if run else None
    # With the pictures of a volume its probabilities are written anyway.
    kinds = writer.probabilities and not writer.pictures, writer.pictures
    for case, path in describe.files_of(images, numbers).items():
        names += export.files_of(case, nifti.is_volume(path), *kinds)
    return names


@dataclass
class _Writer:
    """Write predicted images; the attributes are arguments of `predict_images`."""

    output: Path
    threshold: float | None
    probabilities: bool
    pictures: bool
    decision: decision_file.Decision | None
    volumes: list[dict[str, Any]] = field(default_factory=list)

    def write(self, trained: Trained, root: Path) -> list[Path]:
        """Predict and write; return the label files."""
        if self.decision:
            self.threshold = self.decision["threshold"]
        is_3d, cases = trained.settings.is_3d, own_images.cases(root)
        names = [export.files_of(case, is_3d, True, True) for case in cases]
        possible = [*decision_file.WRITTEN, *itertools.chain(*names)]
        with runs.writing(self.output), written.anew(self.output, possible):
            self.output.mkdir(parents=True, exist_ok=True)
            predicted = _predictions(trained, root)
            labels = [
                self._case(trained, root, *prediction) for prediction in predicted
            ]
            if self.decision:
                self._write_decided(self.decision)
        return labels

    def _case(self, trained: Trained, root: Path, case: str, softmax: _Array) -> Path:
        """Write the files of a case; return its label map."""
        target, geometry = (self.output, case, softmax), own_images.geometry(root, case)
        if self.decision:
            expected = _expected(softmax, geometry, trained, self.decision)
            self.volumes += [{"case": case, **row} for row in expected]
        if self.pictures:
            classes, threshold = trained.classes, self.threshold
            export.write_pictures(*target, own_images, root, classes, threshold)
        elif geometry and self.probabilities:
            export.write_probabilities(*target, geometry)
        if geometry:
            return export.write_labels(*target, geometry, self.threshold)
        written.write(
            self.output / f"{case}.npy",
            lambda aside: np.save(aside, softmax, allow_pickle=False),
        )
        image = Image.fromarray(export.labels(softmax, self.threshold))
        return written.write(self.output / f"{case}.png", image.save)

    def _write_decided(self, decision: decision_file.Decision) -> None:
        volumes, applied = map(self.output.joinpath, decision_file.WRITTEN)

        def table(path: Path) -> None:
            path.unlink(missing_ok=True)  # empty, it is no table that could be replaced
            runs.write_csv(path, ("case", "target", "expected"), self.volumes)

        written.write(volumes, table)
        sealed = schema.sealed(decision)
        written.write(applied, lambda aside: runs.write_json(aside, sealed))


def _expected(
    softmax: _Array,
    geometry: nifti.Geometry | None,
    trained: Trained,
    decision: decision_file.Decision,
) -> Iterator[dict[str, Any]]:
    """Yield the corrected sum of the probabilities of each class, in voxels."""
    shape = geometry.shape if geometry else softmax.shape[:-1]
    slabs = predictions.native(softmax, trained.settings.is_3d, shape)
    sums = sum(p.reshape(-1, p.shape[-1]).sum(0, np.float64) for _, p in slabs)
    rows = zip(trained.classes, decision["classes"], np.atleast_1d(sums), strict=True)
    for name, decision_class, total in list(rows)[1:]:
        factor = decision["volume_factors"].get(decision_class, 1.0)
        yield {"target": name, "expected": float(total) * factor}


def _predictions(trained: Trained, root: Path) -> Iterator[tuple[str, _Array]]:
    """Predict own images one by one; keep none of them in a cache."""
    from data_io.prepare import cache
    from pipelines.training import predict

    for case in bars.bar(own_images.cases(root), "predict", unit="case"):
        with tempfile.TemporaryDirectory() as folder:
            prepared = cache.prepare(
                own_images, root, [case], trained.settings, Path(folder), progress=False
            )
            softmax = predict.probabilities(
                trained.model, prepared, case, trained.protocol
            )
            yield case, trained.scale(softmax)


def evaluate_set(
    folder: Path,
    images: Path,
    masks: Path,
    name: str,
    classes: Sequence[str] = (),
    work: Path = runs.WORK,
    threshold: float | None = None,
) -> Path:
    """Measure a trained run on another set of images; the run's own measures stay.

    Writes `other-sets/<name>/` in the run's folder: `cases.csv` and `histograms.npz` as
    the run's own, with the set's name as their split, and `set.json`. All of the set is
    measured, none of it is split.

    Args:
        folder: a run whose weights are here.
        images: a folder, as for `data_io.own_images.describe.describe`.
        masks: the folder of its label maps.
        name: of the set.
        classes: their names; () for those of the run.
        work: where the look at the images is remembered.
        threshold: measure at it too: `threshold-<threshold>.csv` beside `cases.csv`.

    Raises:
        InputError: a run without weights, images that do not fit, or a name that is a
            part of the run's own split or would be a formula in a table.
    """
    if name in splits.PARTS or is_formula(name):
        raise InputError(
            "--name: expected a name that begins with a letter or digit and is none "
            f"of {', '.join(splits.PARTS)}, parts of the run's own split; received "
            f"{name!r}"
        )
    run = runs.Run.open(folder)
    backend.start(work)
    with runs.lock_folder(folder):
        trained = open_model(folder)
        like = trained.record()
        described = describe.describe(images, masks, work, f"own-{name}", classes, like)
        bars.note(str(described))
        return _evaluate_set(trained, run, described.root, name, work, threshold)


def _evaluate_set(
    trained: Trained,
    run: runs.Run,
    root: Path,
    name: str,
    work: Path,
    threshold: float | None,
) -> Path:
    cases = own_images.cases(root)
    hashes = hashing.case_hashes(own_images, root, cases, work / "cache")
    target = run.path(runs.OTHER_SETS) / name
    record = {
        "format": runs.FORMAT,
        "set": name,
        "cases": list(cases),
        "data_hash": hashing.data_hash(hashes),
        "seen": _seen(run, root, work),
        "model": scaling.trained(run).record["files"][runs.MODEL],
        "commit": commits.commit(),
        "versions": provenance.versions(),
    }
    _require_same_set(target, record["data_hash"])
    thresholds = [None] if threshold is None else [None, threshold]
    measured = _measure(trained, root, name, thresholds)
    # Not in `other-sets`, where what is there is taken for a set.
    aside = run.path(f".{runs.OTHER_SETS}")
    with runs.writing(target):
        shutil.rmtree(aside, ignore_errors=True)
        for at, (rows, pairs) in zip(thresholds, measured, strict=True):
            if at is None:
                evaluate.write(aside, run.record, rows, pairs)
            else:
                path = aside / evaluate.threshold_file(at)
                evaluate.write_cases(path, run.record, rows)
        hashes = {path.name: hashing.file_hash(path) for path in aside.iterdir()}
        record = schema.sealed(record | {"files": hashes})
        runs.write_json(aside / "set.json", record)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        aside.rename(target)
    return target


def _require_same_set(target: Path, data_hash: str) -> None:
    """Refuse to replace other files, or measures of other images of the same name."""
    expected = {*_SET, *(path.name for path in target.glob("threshold-*.csv"))}
    unexpected = {path.name for path in target.glob("*")} - expected
    measured_set, problem = {}, ", ".join(sorted(unexpected)[:3])
    try:
        measured_set = schema.load(target / "set.json", MeasuredSet)
    except FileNotFoundError:
        problem = problem or "no set.json" * target.exists()
    except (OSError, ValueError) as error:
        problem = problem or f"a set.json that cannot be used ({error})"
    if problem:
        raise InputError(
            f"{target}: expected no folder, or the measures of a set, found {problem}. "
            "Give another --name, or move what is there away."
        )
    if measured_set and measured_set.get("data_hash") != data_hash:
        raise InputError(
            f"{target}: expected the images that the set {target.name!r} was measured "
            "on, found others. Give these another --name, or delete that folder."
        )


def _seen(run: runs.Run, root: Path, work: Path) -> list[str] | None:
    """Return which images of a set the run was trained on; None where not known."""
    known = run.seen()
    if known is None:
        bars.note(
            "  note     whether images of this set were trained on is not known: give "
            "the run's `dscpp train` command again, which notes it and trains nothing"
        )
        return None
    cases = own_images.cases(root)
    images = hashing.image_hashes(own_images, root, cases, work / "cache")
    seen = [case for case in cases if images[case] in known]
    bars.note(
        f"  seen     {len(seen)} of {len(cases)} images of this set were trained on "
        "(training and validation)"
    )
    return seen


def _measure(
    trained: Trained, root: Path, name: str, thresholds: Sequence[float | None]
) -> list[evaluate.Measured]:
    """Predict and measure case by case; hold the probabilities of one at a time."""
    measured: list[list[evaluate.Measured]] = [[] for _ in thresholds]
    for case, softmax in _predictions(trained, root):
        is_3d = trained.settings.is_3d
        slabs = functools.partial(predictions.native, softmax, is_3d)
        for at, per_case in zip(thresholds, measured, strict=True):
            per_case.append(
                evaluate.measure_case(own_images, root, name, case, slabs, at)
            )
    return [evaluate.joined(per_case) for per_case in measured]
