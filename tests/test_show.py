"""Pictures of runs: which runs are shown, and which never stand in for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_io.datasets import phantom
from pipelines.environment import provenance
from pipelines.reporting.figures import photographs
from pipelines.runs import run as runs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=1, validation=1, test=2, size=32)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


def make_run(group: Path, data: Path, loss: str, gamma, seed=0, value=0.5, backend=""):
    backend = backend or provenance.backend()
    name = runs.folder_name(loss, gamma, seed, backend)
    split = {part: list(cases) for part, cases in phantom.vessels.split(data).items()}
    record = {"dataset": "phantom", "preset": "demo", "loss": loss, "gamma": gamma}
    record |= {"title": "phantom", "simulated": True}
    record |= {"seed": seed, "backend": backend, "split": split}
    run = runs.Run.create(group / "runs" / name, record)
    run.path("probabilities").mkdir()
    softmax = np.full((32, 32, 2), value, np.float32)
    softmax[..., 0] = 1 - value
    np.save(run.path("probabilities") / f"{split['test'][0]}.npy", softmax)
    return run


def compare(group: Path, data: Path) -> Path | None:
    return photographs.compare(group, data, provenance.backend())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def test_a_run_has_a_picture_named_by_its_first_test_case(tmp_path, data):
    run = make_run(tmp_path, data, "DSC", 1.0)
    path = photographs.picture(run, data)
    assert (
        path == run.path("pictures") / f"{phantom.vessels.split(data)['test'][0]}.png"
    )
    assert pixels(path).std() > 0


def test_single_loss_gives_no_picture(tmp_path, data):
    assert compare(tmp_path, data) is None
    make_run(tmp_path, data, "DSC++", 2.0)
    assert compare(tmp_path, data) is None
    other = "jax" if provenance.backend() != "jax" else "torch"
    make_run(tmp_path, data, "DSC", 1.0, backend=other)
    assert compare(tmp_path, data) is None


def test_only_the_default_exponent_and_the_lowest_seed_are_shown(tmp_path, data):
    make_run(tmp_path, data, "DSC", 1.0, value=0.9)
    make_run(tmp_path, data, "DSC++", 2.0, value=0.3)
    plain = pixels(compare(tmp_path, data))
    make_run(tmp_path, data, "DSC++", 0.5, value=0.7)
    make_run(tmp_path, data, "DSC++", 2.0, seed=1, value=0.7)
    np.testing.assert_array_equal(pixels(compare(tmp_path, data)), plain)
    make_run(tmp_path, data, "CE", None, value=0.2)
    # A panel more, and so lower ones within the same width.
    assert pixels(compare(tmp_path, data)).shape[0] < plain.shape[0]


def test_the_true_probability_of_a_phantom_is_a_panel(tmp_path, data, monkeypatch):
    sheets = []
    draw = photographs.Sheet.draw
    monkeypatch.setattr(
        photographs.Sheet, "draw", lambda s, *a: sheets.append(s) or draw(s, *a)
    )
    for loss, gamma in (("DSC", 1.0), ("DSC++", 2.0)):
        make_run(tmp_path, data, loss, gamma)
    compare(tmp_path, data)
    (row,) = sheets[0].rows
    titles = ["image", "truth", "true probability", "DSC", "DSC++"]
    assert [panel.title for panel in row] == titles
    case = phantom.vessels.split(data)["test"][0]
    np.testing.assert_array_equal(row[2].pixels, phantom.vessels.posterior(data, case))


def test_the_true_posterior_beside_the_losses_is_left_out(tmp_path, data):
    """As `dscpp demo` has it: a run of no loss, which has no picture here."""
    for loss, gamma in (("DSC", 1.0), ("DSC++", 2.0)):
        make_run(tmp_path, data, loss, gamma)
    record = {"loss": "", "gamma": None, "seed": 0, "method": runs.TRUTH}
    runs.Run.create(tmp_path / "runs" / "true-posterior", record)
    assert compare(tmp_path, data).is_file()
