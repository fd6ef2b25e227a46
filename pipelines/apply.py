"""A trained network on other images: predict them, or measure it on them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from data_io import cache, content, datasets, own, splits
from data_io.datasets import folder as own_images
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.preprocessing import Settings
from pipelines import evaluate, export, provenance
from pipelines import run as runs
from pipelines.training import predict, protocol
from pipelines.training.protocol import Protocol

__all__ = [
    "Trained",
    "evaluate_set",
    "open_model",
    "predict_files",
]

_COLOURS = [0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66, 0, 114, 178,
            213, 94, 0, 204, 121, 167]  # Okabe and Ito's, class 0 black  # fmt: skip

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trained:
    """A network and how its images are prepared.

    Attributes:
        model: the network.
        settings: the preprocessing.
        protocol: that of its training; of a model alone its input shape is known.
        classes: names of the classes, background first.
        run: where the network is of a run; None for a model alone.
    """

    model: keras.Model
    settings: Settings
    protocol: Protocol
    classes: tuple[str, ...]
    run: runs.Run | None = None

    def record(self) -> Record:
        """What images must be like to be given to the network."""
        return dataclasses.replace(
            own_images.RECORD,
            classes=self.classes,
            channels=int(self.model.input_shape[-1]),
            input_shape=self.settings.input_shape,
            spacing_mm=self.settings.spacing_mm,
            clip=self.settings.clip,
        )


def open_model(path: Path) -> Trained:
    """Opens a run's network, or a Keras model by itself.

    Args:
        path: a run folder, or a `.keras` file. `run.json` beside it says how images are
            prepared and what the classes are called; without it images are resized to
            the network's input and z-scored, as in this project.

    Raises:
        InputError: no model, a damaged one, other weights than the run's, or a network
            for volumes without `run.json`, which alone knows the voxel size.
    """
    file = path / runs.MODEL if path.is_dir() else path
    model = predict.read_model(file)
    if runs.is_run(file.parent) and file.name == runs.MODEL:
        run = runs.Run.open(file.parent)
        predict.require_own(file, run)
        values = protocol.from_dict(run.record["settings"])
        return Trained(model, _settings(run), values, _classes(run), run)
    shape = tuple(model.input_shape[1:-1])
    if len(shape) != 2:
        raise InputError(
            f"{file}: expected {runs.RECORD} beside a network for volumes, found none. "
            "Give the run's folder: it says to which voxel size volumes are resampled."
        )
    number = int(model.output_shape[-1])
    names = ("background", *map(str, range(1, number)))
    return Trained(model, Settings(shape), Protocol(shape), names)


def _settings(run: runs.Run) -> Settings:
    values = run.record["preprocessing"]
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return Settings(**fields)


def _classes(run: runs.Run) -> tuple[str, ...]:
    """The names in `run.json`; runs of before they were kept have the data set's."""
    named = run.record.get("classes")
    return tuple(named or datasets.by_name(run.record["dataset"]).RECORD.classes)


def predict_files(
    model: Path,
    images: Path,
    output: Path,
    threshold: float | None = None,
    work: Path = Path(".work"),
    volume_probabilities: bool = False,
) -> list[Path]:
    """Predicts images that need no label maps.

    Writes for each image, at its own size, `<name>.png`, a palette image whose indices
    are class numbers, and `<name>.npy`, the probabilities, float32 (rows, columns,
    classes). For each volume `<name>.nii.gz`, uint8 class numbers, and on request
    `<name>_probabilities.nii.gz`, float32, classes last, both with the volume's affine
    and header.

    Args:
        model: as for `open_model`.
        images: a file or a folder of files.
        output: the folder to write to, made where it is missing.
        threshold: see `export.labels`.
        work: where the look at the images is remembered.
        volume_probabilities: write those of volumes too, which are large.

    Returns:
        The label files.

    Raises:
        InputError: bad images, a bad model, a threshold outside (0, 1), or an output
            folder that is the images' own or cannot be written.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(
            f"--threshold: expected a number between 0 and 1, received {threshold}"
        )
    if output.resolve() == (images.parent if images.is_file() else images).resolve():
        raise InputError(
            f"--output {output}: expected another folder than that of the images, "
            "whose files would be replaced"
        )
    trained = open_model(model)
    found = own.describe(images, None, work, like=trained.record())
    written = []
    with runs.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for case, softmax in _predictions(trained, found.root):
            place = own_images.geometry(found.root, case)
            if place and volume_probabilities:
                export.write_probabilities(output, case, softmax, place)
            written.append(
                export.write_labels(output, case, softmax, place, threshold)
                if place
                else _write_image(output, case, softmax, threshold)
            )
    return written


def _predictions(trained: Trained, root: Path) -> Iterator[tuple[str, _Array]]:
    """Predicts own images one by one; nothing of them stays in a cache."""
    for case in tqdm(own_images.cases(root), desc="predict", unit="case"):
        with tempfile.TemporaryDirectory() as place:
            prepared = cache.prepare(
                own_images, root, [case], trained.settings, Path(place), progress=False
            )
            yield (
                case,
                predict.probabilities(trained.model, prepared, case, trained.protocol),
            )


def _write_image(
    output: Path, case: str, softmax: _Array, threshold: float | None
) -> Path:
    path = output / f"{case}.png"
    image = Image.fromarray(export.labels(softmax, threshold), mode="P")
    image.putpalette(_COLOURS)
    image.save(path)
    np.save(output / f"{case}.npy", softmax, allow_pickle=False)
    return path


def evaluate_set(
    folder: Path,
    images: Path,
    masks: Path,
    name: str,
    classes: Sequence[str] = (),
    work: Path = Path(".work"),
) -> Path:
    """Measures a trained run on another set of images; the run's own measures stay.

    Writes `other-sets/<name>/` in the run's folder: `cases.csv` and `histograms.npz` as
    the run's own, with the set's name as their split, and `set.json`. All of the set is
    measured, none of it is split.

    Args:
        folder: a run whose weights are here.
        images: a folder, as for `data_io.own.describe`.
        masks: the folder of its label maps.
        name: of the set.
        classes: their names; () for those of the run.
        work: where the look at the images is remembered.

    Returns:
        The folder written.

    Raises:
        InputError: a run without weights, images that do not fit, or a name that is a
            part of the run's own split.
    """
    if name in splits.PARTS:
        raise InputError(
            f"--name {name}: expected a name of its own for the other set, received "
            "that of a part of the run's own split"
        )
    runs.Run.open(folder)
    with runs.lock_folder(folder):
        trained = open_model(folder)
        like = trained.record()
        found = own.describe(images, masks, work, f"own-{name}", classes, like)
        print(found, flush=True)
        return _evaluate_set(trained, found.root, name, work)


def _evaluate_set(trained: Trained, root: Path, name: str, work: Path) -> Path:
    run = trained.run
    if run is None:
        raise InputError("expected a run folder, received a model alone")
    cases = own_images.cases(root)
    with tempfile.TemporaryDirectory() as place:
        aside = runs.Run(Path(place), run.record)
        aside.path(evaluate.PROBABILITIES).mkdir()
        for case, softmax in _predictions(trained, root):
            np.save(aside.path(evaluate.PROBABILITIES) / f"{case}.npy", softmax)
        measured = evaluate.measure(
            aside, own_images, root, [(name, case) for case in cases]
        )
    target = run.path(runs.OTHER_SETS) / name
    evaluate.write(target, run.record, *measured)
    hashes = content.content(own_images, root, cases, work / "cache")
    about = {
        "format": runs.FORMAT,
        "set": name,
        "cases": list(cases),
        "data_hash": content.data_hash(hashes),
        "model": run.record["files"][runs.MODEL],
        "commit": provenance.commit(),
        "versions": provenance.versions(),
    }
    runs.write_json(target / "set.json", about)
    return target
