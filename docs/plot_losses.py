"""Draw the plots of docs/losses.md from the losses themselves: `make docs`.

The image behind each plot has 1000 voxels, 100 of them foreground, and every voxel has
probability 0.9 for its true class. The first kind of plot moves one voxel alone; the
second moves 100 voxels together, of which a share q is labelled foreground. A loss has
the colour that it has in the figures of the results.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from keras import ops

import losses
from pipelines.reporting.figures import style

FOLDER = Path(__file__).parent / "images" / "losses"
VOXELS, FOREGROUND, TRUE_CLASS = 1000, 100, 0.9
STEP = 1e-5  # of the central differences, in float64
# Of each exponent; gamma 1 is the plain loss, which has a colour of its own.
SHORT, LONG = (0, (2.5, 1.2)), (0, (9, 2.5))
DASHES = {0.5: ":", 1.0: "-", 1.5: "-.", 2.0: "-", 3.0: SHORT, 5.0: LONG}
FOCAL_DASHES = {0.5: ":", 1.0: "-.", 2.0: "-", 5.0: LONG}
PAIRS = (
    "DSC", "Tversky", "Focal Tversky", "Combo", "Unified Focal",
    "Symmetric Unified Focal",
)  # fmt: skip
WANTED = (
    "CE", "Focal", "DSC", "DSC++", "Tversky++", "Combo", "Combo++", "Unified Focal",
    "Unified Focal++",
)  # fmt: skip
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "dscpp",  # the same picture is the same file
}

_Floats = npt.NDArray[np.float64]


def curves(name: str, **hyperparameters: Any) -> list[Any]:
    """Loss and slope over the probability of one voxel.

    Returns:
        for a foreground and for a background voxel: probability (P,), value and slope,
        both times the number of voxels; the value is 0 where the voxel is right.
    """
    lines = []
    for label in (1, 0):
        p = np.linspace(0.01, 0.99, 50)
        up, down = (
            _with_voxel(name, label, p + s, hyperparameters) for s in (STEP, -STEP)
        )
        at = _with_voxel(name, label, np.append(p, float(label)), hyperparameters)
        lines.append((p, at[:-1] - at[-1], (up - down) / (2 * STEP)))
    return lines


def _with_voxel(
    name: str, label: int, p: _Floats, hyperparameters: dict[str, Any]
) -> _Floats:
    """The loss of images that differ in the probability of one voxel, times voxels."""
    truth = np.zeros(VOXELS)
    truth[:FOREGROUND] = 1
    chance = np.where(truth == 1, TRUE_CLASS, 1 - TRUE_CLASS)
    images = np.repeat(chance[None], len(p), axis=0)
    images[:, 0 if label else -1] = p
    return VOXELS * _loss(
        name, np.repeat(truth[None], len(p), axis=0), images, **hyperparameters
    )


def _loss(
    name: str, truth: _Floats, chance: _Floats, **hyperparameters: Any
) -> _Floats:
    loss = losses.by_name(name, reduction=None, dtype="float64", **hyperparameters)
    values = loss(truth[..., None], chance[..., None])
    return np.asarray(ops.convert_to_numpy(values))


def wanted(name: str, shares: _Floats) -> _Floats:
    """The probability that costs least where a share of the voxels is foreground.

    Returns:
        (S,), in [0, 1].
    """
    p = np.linspace(0, 1, 201)
    truth = np.zeros((len(shares), VOXELS))
    truth[:, :FOREGROUND] = 1
    best = []
    for share, labels in zip(shares, truth, strict=True):
        labels[-100:] = np.arange(100) < round(100 * share)
        chance = np.where(labels == 1, TRUE_CLASS, 1 - TRUE_CLASS)
        images = np.repeat(chance[None], len(p), axis=0)
        images[:, -100:] = p[:, None]
        costs = _loss(name, np.repeat(labels[None], len(p), axis=0), images)
        best.append(p[costs.argmin()])
    return np.array(best)


def draw_curves(lines: list[tuple[str, str, Any, list[Any]]], path: Path) -> None:
    """Draw values above, slopes below; a foreground voxel left, background right.

    `lines` have a loss, the rest of its label, its dashes and `curves`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 4.4), sharex=True)
    for loss, more, dashes, kinds in lines:
        look = {"color": style.colour(loss), "ls": dashes, "label": loss + more}
        for column, (p, value, slope) in enumerate(kinds):
            axes[0, column].plot(p, value, **look)
            axes[1, column].plot(p, slope, **look)
    for column, title in enumerate(("voxel of the foreground", "voxel of background")):
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel("probability of foreground")
        axes[1, column].axhline(0, color="0.8", lw=0.6, zorder=0)
    axes[0, 0].set_ylabel("value x voxels")
    axes[1, 0].set_ylabel("slope x voxels")
    for row in axes:
        _limit(row)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", frameon=False)
    _save(figure, path)


def _limit(row: Any) -> None:
    """One scale for both columns; what runs off to infinity is cut."""
    seen = [line.get_ydata() for axis in row for line in axis.get_lines()]
    low, high = (np.percentile(np.concatenate(seen), q) for q in (2, 98))
    margin = 0.15 * (high - low)
    for axis in row:
        axis.set_ylim(low - margin, high + margin)


def draw_wanted(path: Path) -> None:
    """Draw which probability each loss asks for where the truth is a share."""
    shares = np.linspace(0, 1, 26)
    figure, axis = plt.subplots(figsize=(5.6, 4.0))
    axis.plot([0, 1], [0, 1], color="0.85", lw=4, label="calibrated")
    for name in WANTED:
        axis.plot(shares, wanted(name, shares), label=name, **style.line(name))
    axis.set_xlabel("share of these voxels that is foreground")
    axis.set_ylabel("probability at which the loss is lowest")
    figure.legend(loc="outside right upper", frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main(folder: Path = FOLDER) -> None:
    """Draw every plot into a folder."""
    with mpl.rc_context(STYLE):
        lines = [("CE", "", "-", curves("CE"))]
        for exponent, dashes in FOCAL_DASHES.items():
            focal = curves("Focal", alpha=1.0, focal_gamma=exponent)
            lines.append(("Focal", f", focal_gamma {exponent:g}", dashes, focal))
        draw_curves(lines, folder / "cross_entropy.svg")
        for name in PAIRS:
            lines = []
            for gamma, dashes in DASHES.items():
                focal = curves(f"{name}++", gamma=gamma)
                plain = (name, " (gamma 1)")
                named = plain if gamma == 1 else (f"{name}++", f", gamma {gamma:g}")
                lines.append((*named, dashes, focal))
            draw_curves(lines, folder / f"{losses.slug(name)}.svg")
        draw_wanted(folder / "wanted.svg")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
