"""How many functions of ours a value goes through: `pytest -s tests/test_ways.py`.

A bound that is passed says that a detour has come back: take it out, or say here why.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imitations
import numpy as np
import pytest

from data_io.datasets.drive import drive
from data_io.prepare import batches, cache
from data_io.prepare.preprocessing import Settings
from pipelines import cli
from pipelines.training import fit
from pipelines.workflow import reproduce

OURS = ("data_io", "losses", "pipelines")


@contextlib.contextmanager
def stops(has: Any) -> Iterator[list[str]]:
    """Notes our own functions that are called, each once, in the order of their calls.

    Args:
        has: of the values of a call's arguments, whether it counts.
    """
    found: list[str] = []

    def look(frame: Any, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_qualname
        if event != "call" or module.partition(".")[0] not in OURS or "<" in name:
            return
        stop = f"{module}.{name}"
        if stop not in found and has(list(frame.f_locals.values())):
            found.append(stop)

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def holds(values: Sequence[Any], name: str, depth: int = 2) -> bool:
    """Whether a text is among values, or in what they consist of."""
    for value in values:
        if isinstance(value, str):
            if value.casefold() == name.casefold():
                return True
        elif depth and isinstance(value, dict):
            if holds(list(value.values()), name, depth - 1):
                return True
        elif depth and isinstance(value, list | tuple):
            if holds(value, name, depth - 1):
                return True
        elif depth and type(value).__module__.startswith(OURS):
            parts = list(getattr(value, "__dict__", {}).values())
            if holds(parts, name, depth - 1):
                return True
    return False


def shown(title: str, way: list[str]) -> int:
    print(f"\n{title}: {len(way)} stops", *way, sep="\n  ")
    return len(way)


class Arrived(Exception):
    """The loss is where it is used."""


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a training where its loss has been made, in an empty folder."""

    def arrived(model: Any, protocol: Any, loss: Any) -> None:
        assert loss.title == "DSC++"
        raise Arrived

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "compile_model", arrived)


HAS_LOSS = functools.partial(holds, name="DSC++")
CHOSEN = ["--dataset", "phantom", "--preset", "demo"]


@pytest.mark.slow
@pytest.mark.usefixtures("fitted")
def test_loss_reaches_fit_from_dscpp_train() -> None:
    with stops(HAS_LOSS) as way, pytest.raises(Arrived):
        cli.main(["train", *CHOSEN, "--loss", "DSC++", "--output", "run"])
    assert shown("loss, dscpp train", way) <= 27


@pytest.mark.slow
@pytest.mark.usefixtures("fitted")
def test_loss_reaches_fit_from_dscpp_reproduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Path] = []

    def made(planned: Sequence[Any], *_: Any) -> int:
        files.append(planned[0].write(tmp_path / "0.json"))
        return 0

    monkeypatch.setattr(reproduce, "make", made)
    with stops(HAS_LOSS) as way, pytest.raises(Arrived):
        cli.main(["reproduce", *CHOSEN, "--losses", "DSC++"])
        cli.main(["run", str(files[0])])
    assert shown("loss, dscpp reproduce", way) <= 41


def test_image_reaches_a_batch_from_its_file(
    tmp_path: Path,
) -> None:
    root = imitations.write_drive(tmp_path / "DRIVE")
    settings = Settings.of(drive.RECORD, (64, 64))

    def carries(values: Sequence[Any]) -> bool:
        """Whether the case's name, a path of its files or pixels are among values."""
        paths = [str(v) for v in values if isinstance(v, str | Path)]
        known = any(Path(path).name[:3] in ("21", "21_") for path in paths)
        return known or any(isinstance(v, np.ndarray) and v.ndim > 1 for v in values)

    with stops(carries) as way:
        prepared = cache.prepare(drive, root, ["21"], settings, tmp_path / "cache")
        drawn = batches.Batches(prepared, ["21"], classes=2, seed=0, augment=True)
        image, _ = drawn.draw(epoch=0, index=0)
    assert image.shape == (1, 64, 64, 3) and np.isfinite(image).all()
    assert shown("image", way) <= 34
