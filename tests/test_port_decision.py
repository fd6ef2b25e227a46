"""The lines of the port's README that apply a decision file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.measure.metrics import predicted
from pipelines.runs.predictions import scale

pytest.importorskip("torch")
pytestmark = pytest.mark.ports
README = Path(__file__).resolve().parents[1] / "ports" / "torch" / "README.md"


NAMES = ["background", "a", "b"]


def applied(logits: str, classes: int, monkeypatch, folder: Path) -> dict[str, Any]:
    """What the lines compute of other logits than theirs: a Python expression."""
    _, text = README.read_text().split("## A decision file")
    code = text.split("```python\n")[1].partition("```")[0]
    written: dict[str, Any] = {"temperature": 1.8, "threshold": 0.4}
    written |= {"classes": NAMES[:classes], "volume_factors": {"a": 0.9}}
    (folder / "decision.json").write_text(json.dumps(written))
    monkeypatch.chdir(folder)
    theirs = "torch.randn(2, 2, 64, 64)"
    assert theirs in code
    found: dict[str, Any] = {}
    exec(code.replace(theirs, logits), found)
    return found


@pytest.mark.parametrize("classes", [2, 3])
def test_readme_lines_equal_dscpp(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = f"torch.randn(2, {classes}, 64, 64)"
    found = applied(logits, classes, monkeypatch, tmp_path)
    softmax = found["logits"].softmax(1).numpy()
    p = scale(np.moveaxis(softmax, 1, -1), 1.8)
    labels = predicted(np.moveaxis(p, -1, 0), 0.4)
    assert 0.1 < (labels > 0).mean() < 0.9
    assert (found["labels"][:, 0].numpy() == labels).mean() > 0.999
    expected = p.sum((1, 2))[:, 1:] * np.array([0.9, 1.0])[: classes - 1]
    np.testing.assert_allclose(found["voxels"].numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_volumes_of_low_precision_logits_are_finite(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """512 x 512 voxels of p = 1 / (1 + exp(-4 / 1.8)): float16 ends at 65504."""
    logits = f"torch.tensor([-2, 2.0], dtype=torch.{dtype})"
    logits += ".reshape(1, 2, 1, 1).expand(1, 2, 512, 512)"
    found = applied(logits, 2, monkeypatch, tmp_path)
    expected = 0.9 * 512**2 / (1 + np.exp(-4 / 1.8))
    assert found["voxels"].item() == pytest.approx(expected, rel=1e-5)


def test_readme_lines_stay_on_the_device_of_the_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 'torch.randn(2, 2, 64, 64, device="meta")'
    found = applied(logits, 2, monkeypatch, tmp_path)
    assert found["voxels"].device.type == found["labels"].device.type == "meta"
