"""Entries that need a training: minutes on phantoms, with the demo preset."""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from errata.registry import Row, measured

SETTINGS = {
    "published": [],
    "corrected": ["--set", "momentum=0.0", "--set", "nesterov=false"],
}


@measured("momentum", "constructed", "a constant slope, learning rate 0.1")
def effective_step() -> Iterator[Row]:
    """How far SGD goes down a constant slope, with and without momentum."""
    for steps in (10, 100):
        found = [_distance(steps, momentum) for momentum in (0.9, 0.0)]
        yield Row(
            f"way after {steps} steps / {steps} steps of 0.1: momentum 0.9, none",
            *(way / (0.1 * steps) for way in found),
        )


def _distance(steps: int, momentum: float) -> float:
    """Keras' SGD with Nesterov momentum: v = m v + lr g, w = w - m v - lr g."""
    velocity = place = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 0.1
        place += momentum * velocity + 0.1
    return place


@measured(
    "momentum", "training", "phantom, preset demo, DSC++, seed 0, 25 epochs", slow=True
)
def momentum() -> Iterator[Row]:
    """Plain SGD, as the paper says, beside Nesterov momentum 0.9, as the code has."""
    found = {form: _train(extra) for form, extra in SETTINGS.items()}
    for name in next(iter(found.values())):
        yield Row(
            f"{name}: momentum 0.9 (code), none (paper)",
            *(values[name] for values in found.values()),
        )


def _train(extra: list[str]) -> dict[str, float]:
    """Train in a folder that is thrown away; what its `history.csv` says."""
    from pipelines import cli

    command = ["train", "--dataset", "phantom", "--preset", "demo", "--loss", "DSC++"]
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main([*command, "--output", str(run), *extra])
        if code:
            raise RuntimeError(f"dscpp {' '.join(command)}: expected 0, found {code}")
        with (run / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return {
        "training loss of epoch 5": float(rows[4]["loss"]),
        "training loss of the last epoch": float(rows[-1]["loss"]),
        "lowest validation loss": min(float(row["val_loss"]) for row in rows),
    }
