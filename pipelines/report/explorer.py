"""The threshold explorer: figures at each softmax threshold, and their pixels.

Figures come from the runs' histograms and tables. A picture keeps the probability of
each pixel as a byte in which every threshold is exact (`code`): picture and figures
agree, but where an image is large and only every second row and column is drawn.
"""

import base64
import io
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_io import bars, datasets
from data_io.datasets import is_own
from data_io.datasets.layout import ABOUT
from data_io.datasets.phantom import vessels
from data_io.errors import InputError
from data_io.files import nifti
from pipelines.measure import decisions, histograms
from pipelines.measure.histograms import THRESHOLDS
from pipelines.measure.metrics import ratio
from pipelines.reporting.figures import curves, panels, photographs, style
from pipelines.reporting.figures.photographs import Locate, Plane
from pipelines.reporting.frame import Study, by_dice
from pipelines.reporting.pages import Page
from pipelines.runs import predictions
from pipelines.runs.run import JUDGED, OWN_DATA, Run

SUBDIVISIONS = 12
"""Bytes between two thresholds: 20 x 12 of them are used."""

ALL = "all test images"
_LOSSES, _SLICES = 4, 9  # most that are shown of a case
_PIXELS = 350_000  # most of a picture, with all its slices
_OVERCONFIDENT = 3.0  # times the logits of a phantom's true probability
_METRICS = ("precision", "recall", "dice")
_WHERE = {"split": "test", "region": "image", "reference": "observer1"}

_Array = npt.NDArray[Any]
_Entry = dict[str, Any]
_Scenes = dict[str, _Entry]
_Reasons = dict[str, None]  # in order, each once


def data(
    pages: Sequence[Page], locate: Locate, simulated: bool = True
) -> dict[str, Any]:
    """Collect everything that the explorer shows, for JSON.

    Why a picture is not there is said once for each reason, on standard error.

    Args:
        pages: of the runs at hand.
        locate: see `photographs.Locate`.
        simulated: show simulated images where there is no picture at all.

    Returns:
        "thresholds", (19,); "entries", one for each data set, class, case and loss,
        with the figures at each threshold; "scenes": images and labels of the cases
        with a picture; "heat" and "key": the colours of bytes, and of errors. Simulated
        images, with their true probability, come first.
    """
    scenes: _Scenes = {}
    reasons: _Reasons = {}
    entries = [
        entry for page in pages for entry in _of_page(page, locate, scenes, reasons)
    ]
    for reason in reasons:
        bars.note(f"dscpp: warning: not every picture is shown: {reason}", sys.stderr)
    if simulated and not scenes:
        entries = [*_phantoms(scenes), *entries]
    from matplotlib import colormaps

    places = np.linspace(0, 1, (len(THRESHOLDS) + 1) * SUBDIVISIONS)
    return {
        "thresholds": THRESHOLDS.tolist(),
        "subdivisions": SUBDIVISIONS,
        "heat": colormaps[style.HEAT](places, bytes=True)[:, :3].tolist(),
        "key": panels.KEY,
        "entries": entries,
        "scenes": scenes,
    }


def named(study: Study) -> str:
    """Name a data set and its preset; without a preset nothing was trained."""
    preset = f", preset {study.preset}" if study.preset else ""
    return f"{curves.name_of(study.record)}{preset}"


def code(p: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Keep probabilities as bytes, with every threshold exact.

    Args:
        p: probabilities, any shape, in [0, 1].

    Returns:
        A byte of the same shape: p >= 0.05 k where it is >= `SUBDIVISIONS` k.
    """
    values = np.clip(np.asarray(p, np.float64), 0, 1)
    edges = np.concatenate([[0.0], THRESHOLDS, [1.0]])
    level = np.searchsorted(THRESHOLDS, values, side="right")
    part = (values - edges[level]) / (edges[level + 1] - edges[level])
    within = np.minimum((part * SUBDIVISIONS).astype(int), SUBDIVISIONS - 1)
    return np.asarray(level * SUBDIVISIONS + within, np.uint8)


def _of_page(
    page: Page, locate: Locate, scenes: _Scenes, reasons: _Reasons
) -> Iterator[_Entry]:
    """Yield the entries of a study: means, then cases; pictures go into `scenes`."""
    study = page.study
    fields = {"dataset": named(study)}
    yield from (fields | mean for mean in _means(page))
    losses = {}  # the first run with probabilities here; without any the first run
    for variant in (study.main or list(study.runs))[:_LOSSES]:
        runs = study.runs[variant]
        losses[variant.label] = next(filter(_is_here, runs), runs[0])
    for case, rank in _ranked(study, list(losses.values())[-1]).items():
        name, more = f"{fields['dataset']}, {case}", ""
        try:
            root, more = _root(losses, locate, reasons)
            pictures, scenes[name] = _read(losses, root, case)
            if scenes[name]["slices"]:
                more += " The figures are of the whole volume."
        except InputError as error:
            reasons[str(error)] = None
            pictures, more = {}, f" No picture: {str(error).splitlines()[0]}"
        for index, target in enumerate(study.targets, start=1):
            for loss, run in losses.items():
                entry: _Entry = fields | {"target": target, "loss": loss, "case": rank}
                note = f"This image alone, run {run.name}.{more}"
                entry |= {"note": note, "index": index}
                if loss in pictures:
                    entry |= {"scene": name, "p": _packed(pictures[loss][..., index])}
                histogram = study.histograms[str(run.folder)]
                row = histogram.where(target=target, case=case, **_WHERE)
                (counts,), (p,) = histogram.counts[row], histogram.confidence()[row]
                yield entry | _figures(counts, p, histogram.edges)


def _is_here(run: Run) -> bool:
    return run.path(predictions.PROBABILITIES).is_dir()


def _means(page: Page) -> Iterator[_Entry]:
    """Yield the entries of thresholds.csv and practice.csv by loss and class."""
    study = page.study
    table, practice = page.files["thresholds.csv"], page.files["practice.csv"]
    for target in study.targets:
        for variant in study.main:
            rows = variant.rows(table[table["target"] == target]).set_index("metric")
            entry: _Entry = {"target": target, "case": ALL, "loss": variant.label}
            entry["note"] = f"Mean over {study.about([variant])}: thresholds.csv."
            for name in _METRICS:
                columns = rows.loc[name, ["mean", "ci_low", "ci_high"]]
                entry[name] = {key: _rounded(columns[key]) for key in columns}
            bias = variant.rows(practice[practice["target"] == target])
            bias = bias.set_index("measure").loc["volume_expected", "mean"]
            yield entry | {"expected": _rounded([1 + bias])[0]}


def _rounded(values: Any) -> list[float | None]:
    """Round to 6 digits, as in the tables; None where undefined."""
    array = np.asarray(values, np.float64)
    return [None if np.isnan(number) else float(f"{number:.6g}") for number in array]


def _figures(counts: _Array, confidence: _Array, edges: _Array) -> _Entry:
    """Measure one case at each threshold, from its histogram, (2, B)."""
    overlap = histograms.threshold_metrics(counts, edges=edges)
    parts = [histograms.confusion(counts, float(at), edges) for at in THRESHOLDS]
    true, positive = counts[1].sum(), [tp + fp for tp, fp, *_ in parts]
    named = {name: overlap[name] for name in _METRICS} | {
        "volume": ratio(positive, true)
    }
    expected = ratio(decisions.expected_volume(counts, confidence), true)
    figures: _Entry = {key: {"mean": _rounded(values)} for key, values in named.items()}
    return figures | {"expected": _rounded([expected])[0]}


def _ranked(study: Study, run: Run) -> dict[str, str]:
    """Choose three test cases by the Dice of a run, and name their ranks."""
    ranked = by_dice(study, run)
    places = {"median": (len(ranked) - 1) // 2, "lowest": 0, "highest": -1}
    ranks = {ranked[at]: word for word, at in reversed(places.items())}
    loss = run.record["loss"]
    return {case: f"{case}: {ranks[case]} Dice with {loss}" for case in reversed(ranks)}


def _root(
    losses: Mapping[str, Run], locate: Locate, reasons: _Reasons
) -> tuple[Path, str]:
    """Find the folder of the images, and a warning for their pictures.

    Of own images some may be gone or changed: the others are where they were.
    """
    run = next(iter(losses.values()))
    if run.record["dataset"] == JUDGED:
        raise InputError("`dscpp judge` keeps no probabilities")
    available = next(filter(_is_here, losses.values()), None)
    if available is None:
        raise InputError("the probabilities are not on this machine; git has none")
    try:
        return locate(available), ""
    except InputError as error:
        kept = available.trained / OWN_DATA
        if not is_own(available.record["dataset"]) or not (kept / ABOUT).is_file():
            raise
        reasons[str(error)] = None
        return kept, (
            " Files of this data set are gone or changed: the label map fits the "
            "run's measures, the image is not compared with the training's."
        )


def _read(
    losses: Mapping[str, Run], root: Path, case: str
) -> tuple[dict[str, _Array], _Entry]:
    """Read p of a case by loss, (S, rows, columns, C), thinned, and its scene.

    Raises:
        InputError: its image or its probabilities are not here, or its label map is
            another than the one that was measured.
    """
    available = {loss: run for loss, run in losses.items() if _is_here(run)}
    first = next(iter(available.values()))
    module = datasets.by_name(first.record["dataset"])
    label = module.references(root, case)["observer1"]
    _require_measured(first, label, case)
    geometry = module.geometry(root, case)
    shape = geometry.shape if geometry else module.picture(root, case).shape[:2]
    if shape != label.shape:
        raise InputError(
            f"case {case}: expected an image of its label map's size, {label.shape}, "
            f"found {shape}; restore it"
        )
    kept = [predictions.as_kept(one, module, root, case) for one in available.values()]
    planes = _planes(geometry, label > 0) if geometry else []
    parts: Sequence[Plane | None] = planes or [None]
    images, labels, *softmax = zip(
        *(photographs.seen(module, root, case, plane, label, kept)
          for plane in parts), strict=True
    )  # fmt: skip
    by_loss = dict(zip(available, map(np.stack, softmax), strict=True))
    pictures, scene = _thinned(by_loss, np.stack(labels), images)
    if planes:
        scene["slices"] = [int(plane.index) for plane in planes]
        scene["aspect"] = planes[0].aspect
    return pictures, scene


def _require_measured(run: Run, label: _Array, case: str) -> None:
    """Refuse a label map with other numbers of voxels than those measured."""
    histogram = histograms.load(run.path("histograms.npz"))
    for index, target in enumerate(run.record.get("classes", [])[1:], start=1):
        row = histogram.where(target=target, case=case, **_WHERE)
        counted, labelled = (
            histogram.counts[row, 1].sum(),
            np.count_nonzero(label == index),
        )
        if row.any() and counted != labelled:
            raise InputError(
                f"case {case}: expected the label map that {run.folder} was measured "
                f"with, {counted} voxels of {target}, found {labelled}; restore it"
            )


def _planes(geometry: nifti.Geometry, target: _Array) -> list[Plane]:
    """Choose slices from end to end of the foreground, the fullest among them."""
    fullest = Plane.of(geometry, target)
    there = np.flatnonzero(np.moveaxis(target, fullest.axis, 0).any(axis=(1, 2)))
    if not len(there):
        return [fullest]
    even = np.linspace(there[0], there[-1], min(_SLICES, len(there))).round()
    indices = sorted({int(index) for index in even} | {fullest.index})
    return [replace(fullest, index=index) for index in indices]


def _thinned(
    by_loss: Mapping[str, _Array], labels: _Array, images: Sequence[_Array]
) -> tuple[dict[str, _Array], _Entry]:
    """Leave out rows and columns until a picture is small enough."""
    step = 1
    while labels[:, ::step, ::step].size > _PIXELS:
        step += 1
    kept = labels[:, ::step, ::step].astype(np.uint8)
    scene = {
        "shape": list(kept.shape),
        "step": step,
        "aspect": 1.0,
        "slices": [],
        "first": int(np.count_nonzero(kept, axis=(1, 2)).argmax()),
        "labels": _zipped(kept),
        "images": [
            _jpeg(panels.photo(image).pixels[::step, ::step]) for image in images
        ],
    }
    return {loss: p[:, ::step, ::step] for loss, p in by_loss.items()}, scene


def _phantoms(scenes: _Scenes) -> Iterator[_Entry]:
    """Yield simulated images with the true and with an overconfident probability."""
    root, target = vessels.locate(None), vessels.RECORD.classes[1]
    for case in vessels.split(root)["test"][:3]:
        p = vessels.posterior(root, case)
        by_loss = {"true probability": np.stack([1 - p, p], axis=-1)}
        name = f"overconfident: logits of the true probability x {_OVERCONFIDENT:g}"
        by_loss[name] = predictions.scale(
            by_loss["true probability"], 1 / _OVERCONFIDENT
        )
        label = vessels.references(root, case)["observer1"]
        pictures = {loss: softmax[np.newaxis] for loss, softmax in by_loss.items()}
        image = vessels.picture(root, case)
        _, scenes[case] = _thinned(pictures, label[np.newaxis], [image])
        for loss, softmax in by_loss.items():
            p = softmax[..., 1].ravel()
            counts = histograms.count(p, label.ravel())
            sums = histograms.sum_bins(histograms.bins_of(p), p)
            confidence = ratio(sums, counts.sum(axis=0))
            figures = _figures(counts, np.nan_to_num(confidence), histograms.EDGES)
            yield figures | {
                "dataset": "phantom (SIMULATED)",
                "target": target,
                "case": case,
                "loss": loss,
                "scene": case,
                "p": _packed(softmax[..., 1]),
                "index": 1,
                "note": "Simulated: no network, no patient.",
            }


def _packed(p: _Array) -> str:
    return _zipped(code(p))


def _zipped(array: npt.NDArray[np.uint8]) -> str:
    """Bytes in C order: zlib, then base64."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    """An image, (rows, columns, 3), as an address that holds it."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
