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


@pytest.mark.parametrize("classes", [2, 3])
def test_readme_lines_equal_dscpp(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = README.read_text().split("## A decision file")
    code = text.split("```python\n")[1].partition("```")[0]
    names = ["background", "a", "b"][:classes]
    written: dict[str, Any] = {"temperature": 1.8, "threshold": 0.4, "classes": names}
    written["volume_factors"] = {"a": 0.9}
    (tmp_path / "decision.json").write_text(json.dumps(written))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code.replace("randn(2, 2,", f"randn(2, {classes},"), found)
    softmax = found["logits"].softmax(1).numpy()
    p = scale(np.moveaxis(softmax, 1, -1), 1.8)
    labels = predicted(np.moveaxis(p, -1, 0), 0.4)
    assert 0.1 < (labels > 0).mean() < 0.9
    assert (found["labels"][:, 0].numpy() == labels).mean() > 0.999
    expected = p.sum((1, 2))[:, 1:] * np.array([0.9, 1.0])[: classes - 1]
    np.testing.assert_allclose(found["voxels"].numpy(), expected, rtol=1e-4)
