"""Entries about measures, on examples made for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from errata.examples import phantom_label
from errata.registry import Row, measured
from pipelines.measure.metrics import CaseMetrics, case_metrics

CLASSES = ("background", "kidney", "tumour")


@measured(
    "label-map-scores",
    "constructed",
    "all right, 2 % kidney, 1 % tumour",
)
def label_map_scores() -> Iterator[Row]:
    """A perfect prediction of three classes against the label map, one against rest."""
    label = np.repeat([0, 1, 2], [97, 2, 1])
    found = {t: case_metrics(label, np.eye(3)[label], target=t) for t in (1, 2)}
    yield from _perfect(found)


@measured("label-map-scores", "data", "KiTS19 label maps, perfect prediction", "kits19")
def label_map_scores_of_kits19(root: Path) -> Iterator[Row]:
    """The same for every label map at hand, slice by slice, mean over cases."""
    from data_io.datasets.kits19 import kits19
    from data_io.files import nifti

    cases = kits19.cases(root)
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for case in cases:
        measures = CaseMetrics([1, 2])
        label = nifti.read_label(kits19.roles(root, case)["observer1"])
        for plane in label:
            measures.add(plane, np.eye(3, dtype=np.float32)[plane])
        for target, values in found.items():
            values.append(measures.of(target))
    means = {
        target: {name: float(np.mean([v[name] for v in values])) for name in values[0]}
        for target, values in found.items()
    }
    yield from _perfect(means, f", mean of {len(cases)} cases")


def _perfect(found: dict[int, dict[str, float]], of: str = "") -> Iterator[Row]:
    for target, values in found.items():
        for metric, name in (("nll", "NLL"), ("brier", "Brier")):
            # The floor of the logarithm leaves 1e-7 of a perfect prediction's NLL.
            yield Row(
                f"{name} of the {CLASSES[target]}{of}",
                values[f"{metric}_published"],
                round(values[metric], 6),
            )


@measured("undefined-scores", "constructed", "five images, one without any foreground")
def undefined_scores() -> Iterator[Row]:
    """Mean Dice where one image has none, by a plain mean and over the defined ones."""
    truth, guess = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])
    empty = np.zeros(4, int)
    scores = np.array(
        [
            case_metrics(y, np.eye(2)[g], target=1)["dice"]
            for y, g in [(truth, guess)] * 4 + [(empty, empty)]
        ]
    )
    yield Row("mean Dice", float(scores.mean()), float(np.nanmean(scores)))


@measured("native-size", "constructed", "phantom of 292x283, network at 128x128")
def native_size() -> Iterator[Row]:
    """An overconfident prediction, brought back with order 1 and as it is.

    The network's output is the resized label itself, moved by one pixel: always 0 or 1,
    often wrong. Published: its values go linearly to the native size. Corrected: the
    nearest value, as confident as the network was.
    """
    from data_io.prepare.miscnn_compat import Resize, Sample

    truth = phantom_label(292, 283)
    label = _resized(truth, (128, 128))
    wrong = np.roll(label, 1, axis=1)
    softmax = np.stack([1 - wrong, wrong], axis=-1).astype(np.float64)
    found = {}
    for form, order in (("published", 1), ("corrected", 0)):
        sample = Sample("x", np.zeros((1, 1, 1)), 1, 2, {"original_shape": truth.shape})
        step = Resize((128, 128), order_seg=order)
        native = step.postprocessing(sample, softmax, activation_output=True)
        found[form] = case_metrics(truth, np.clip(native, 0, 1), target=1)
    for metric, name in (("nll", "NLL"), ("brier", "Brier"), ("dice", "Dice")):
        yield Row(name, found["published"][metric], found["corrected"][metric])


def _resized(label: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A label map at the network's size, through MIScnn."""
    from data_io.prepare.miscnn_compat import Resize, Sample

    image, mask = np.zeros((*label.shape, 1)), label[..., np.newaxis]
    sample = Sample("x", image, 1, 2, {})
    sample.add_segmentation(mask)
    Resize(shape).preprocessing(sample, training=True)
    return sample.seg_data[..., 0]


@measured("argmax-threshold", "constructed", "all probabilities of three classes, even")
def argmax_threshold() -> Iterator[Row]:
    """Voxels that argmax gives a class, and that no class's p of 0.5 does.

    Over a grid of the triangle of probabilities; the exact share is 1/4.
    """
    steps = 200
    a, b = np.meshgrid(np.arange(steps), np.arange(steps), indexing="ij")
    # The triangle is cut into small ones, of which these are the centres.
    upright, turned = a + b < steps, a + b < steps - 1
    p = np.concatenate(
        [
            np.stack([a[where] + shift, b[where] + shift], axis=-1) / steps
            for where, shift in ((upright, 1 / 3), (turned, 2 / 3))
        ]
    )
    p = np.column_stack([p, 1 - p.sum(axis=-1)])
    share = float(np.mean((p < 0.5).all(axis=-1)))
    yield Row("share of voxels without a class at T = 0.5, said to be argmax", 0, share)
