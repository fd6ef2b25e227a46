"""Entries about measures, on constructed examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from errata.examples import phantom_label
from errata.registry import Row, measured
from pipelines.measure.metrics import CaseMetrics, case_metrics

TARGETS = {"kidney": 1, "tumour": 2}


@measured("label-map-scores", "constructed", "all right, 2 % kidney, 1 % tumour")
def label_map_scores() -> Iterator[Row]:
    """Score a perfect prediction of three classes by both definitions."""
    label = np.repeat([0, 1, 2], [97, 2, 1])
    for name, target in TARGETS.items():
        yield from _perfect(name, case_metrics(label, np.eye(3)[label], target=target))


@measured("label-map-scores", "data", "KiTS19 label maps, perfect prediction", "kits19")
def label_map_scores_of_kits19(root: Path) -> Iterator[Row]:
    """Score perfect predictions of KiTS19's label maps, by slice."""
    from data_io.datasets.kits19 import kits19
    from data_io.files import nifti

    scores: dict[str, list[dict[str, float]]] = {name: [] for name in TARGETS}
    cases = kits19.cases(root)
    for case in cases:
        measures = CaseMetrics([*TARGETS.values()])
        for plane in nifti.read_label(kits19.roles(root, case)["observer1"]):
            measures.add(plane, np.eye(3, dtype=np.float32)[plane])
        for name, values in scores.items():
            values.append(measures.of(TARGETS[name]))
    for name, values in scores.items():
        means = pd.DataFrame(values).mean(skipna=False).to_dict()
        yield from _perfect(f"{name}, mean of {len(cases)} cases", means)


def _perfect(name: str, values: Mapping[str, float]) -> Iterator[Row]:
    for metric, title in (("nll", "NLL"), ("brier", "Brier")):
        # The floor of the logarithm leaves 1e-7 of a perfect prediction's NLL.
        corrected = round(values[metric], 6)
        yield Row(f"{title} of the {name}", values[f"{metric}_published"], corrected)


@measured("undefined-scores", "constructed", "five images, one without any foreground")
def undefined_scores() -> Iterator[Row]:
    """Compare the plain mean of Dice with the mean of defined values."""
    image = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])
    empty = np.zeros((2, 4), int)
    scores = [
        case_metrics(label, np.eye(2)[guess], target=1)["dice"]
        for label, guess in (image, image, image, image, empty)
    ]
    yield Row("mean Dice", np.mean(scores), np.nanmean(scores))


@measured("native-size", "constructed", "phantom of 292x283, network at 128x128")
def native_size() -> Iterator[Row]:
    """Compare an overconfident prediction resized with order 1 and with order 0.

    The network's output is the resized label itself, moved by one pixel: always 0 or 1,
    often wrong. Published: its values are interpolated linearly to the native size.
    Corrected: the nearest value, as confident as the network was.
    """
    from data_io.prepare.miscnn_compat import Resize, Sample

    label = phantom_label(292, 283)
    resized = Sample("x", np.zeros((*label.shape, 1)), 1, 2, {})
    resized.add_segmentation(label[..., np.newaxis])
    Resize((128, 128)).preprocessing(resized, training=True)
    wrong = np.roll(resized.seg_data[..., 0], 1, axis=1)
    softmax = np.stack([1 - wrong, wrong], axis=-1).astype(np.float64)
    forms = []
    for order in (1, 0):
        sample = Sample("x", np.zeros((1, 1, 1)), 1, 2, {"original_shape": label.shape})
        step = Resize((128, 128), order_seg=order)
        restored = step.postprocessing(sample, softmax, activation_output=True)
        forms.append(case_metrics(label, np.clip(restored, 0, 1), target=1))
    for metric, name in (("nll", "NLL"), ("brier", "Brier"), ("dice", "Dice")):
        yield Row(name, *(scores[metric] for scores in forms))


@measured("argmax-threshold", "constructed", "all probabilities of three classes, even")
def argmax_threshold() -> Iterator[Row]:
    """Measure voxels that argmax assigns a class while every p is below 0.5.

    Over a grid of the triangle of probabilities; the exact share is 1/4.
    """
    steps = 200
    a, b = np.indices((steps, steps))
    # The triangle is cut into small ones, of which these are the centres.
    upright, turned = a + b < steps, a + b < steps - 1
    p = np.concatenate(
        [
            np.stack([a[where] + shift, b[where] + shift], axis=-1) / steps
            for where, shift in ((upright, 1 / 3), (turned, 2 / 3))
        ]
    )
    p = np.column_stack([p, 1 - p.sum(axis=-1)])
    share = np.mean((p < 0.5).all(axis=-1))
    yield Row("share of voxels without a class at T = 0.5, said to be argmax", 0, share)
