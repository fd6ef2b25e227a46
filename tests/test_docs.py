"""What the documents show is what the code gives."""

from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path

import numpy as np
import pytest

import losses


@pytest.fixture(scope="module")
def plots() -> types.ModuleType:
    """docs/plot_losses.py, which is in no package."""
    path = Path(__file__).parents[1] / "docs" / "plot_losses.py"
    spec = importlib.util.spec_from_file_location("plot_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plots_of_the_losses_are_those_that_make_docs_draws(
    plots: types.ModuleType, project: Path, tmp_path: Path
) -> None:
    plots.main(tmp_path)
    committed = project / "docs" / "images" / "losses"
    names = sorted(path.name for path in committed.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_text() == (committed / name).read_text(), name


def test_slopes_of_the_plots_by_hand(plots: types.ModuleType) -> None:
    # CE, two classes: -log p and -log(1 - p) of one voxel, mean over 1000, times 1000.
    (p, value, slope), (q, other, away) = plots.curves("CE")
    np.testing.assert_allclose(value, -np.log(p), atol=1e-4)
    np.testing.assert_allclose(slope, -1 / p, rtol=1e-6)
    np.testing.assert_allclose(other, -np.log1p(-q), atol=1e-4)
    np.testing.assert_allclose(away, 1 / (1 - q), rtol=1e-6)


def test_ce_asks_for_the_share_and_dsc_for_all_or_nothing(
    plots: types.ModuleType,
) -> None:
    shares = np.array([0.1, 0.25, 0.6])
    np.testing.assert_allclose(plots.wanted("CE", shares), shares, atol=0.005)
    np.testing.assert_array_equal(plots.wanted("DSC", shares), [0, 0, 1])


def test_every_loss_is_described(project: Path) -> None:
    text = (project / "docs" / "losses.md").read_text("utf-8")
    headings = re.findall(r"^### (.*)$", text, re.M)
    described = [name for line in headings for name in line.split(" and ")]
    assert sorted(described) == sorted(losses.names())
    for link in re.findall(r"\]\(((?!http|#)[^)]+)\)", text):
        assert (project / "docs" / link).exists(), link
