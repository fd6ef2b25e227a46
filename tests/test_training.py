"""Training: the network, the callbacks' state, exact resume, refusals."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from data_io.datasets import phantom
from data_io.errors import InputError
from pipelines import run as runs
from pipelines import stages
from pipelines.training import callbacks, fit, state, unet
from pipelines.training.task import Task

pytestmark = pytest.mark.backend

TINY = {"input_shape": [32, 32], "filters": 4, "depth": 1, "plateau_patience": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A phantom set of 4 training, 2 validation and 3 test images, 32x32."""
    settings = phantom.Settings(training=4, validation=2, test=3, size=32, seed=1)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture
def work(tmp_path) -> Path:
    return tmp_path / "work"


def task(epochs: int = 6, loss: str = "DSC++", **overrides) -> Task:
    return Task.make(
        "phantom",
        loss,
        seed=3,
        preset="demo",
        overrides={**TINY, "epochs": epochs, **overrides},
    )


def weights(run: runs.Run) -> list[np.ndarray]:
    model = keras.models.load_model(run.path("model.keras"), compile=False)
    return model.get_weights()


def same_run(one: runs.Run, other: runs.Run) -> None:
    """history.csv and the weights, to the bit."""
    assert one.path("history.csv").read_text() == other.path("history.csv").read_text()
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_of_the_standard_unet():
    model = unet.UNet().create_model_2D((512, 512, 3), 2)
    assert model.count_params() == 7_766_018
    assert model.output_shape == (None, 512, 512, 2)


def test_the_unet_in_3d_takes_unequal_axes_and_three_classes():
    model = unet.UNet(filters=2, depth=2).create_model_3D((8, 12, 16, 1), 3)
    out = keras.ops.convert_to_numpy(model(np.zeros((1, 8, 12, 16, 1), "float32")))
    assert out.shape == (1, 8, 12, 16, 3)
    np.testing.assert_allclose(out.sum(-1), 1, rtol=1e-5)


def test_the_seed_decides_the_weights(data, work, tmp_path):
    first, second = [
        stages.train(task(1), data, tmp_path / name, work) for name in ("a", "b")
    ]
    same_run(first, second)
    other = Task.make(
        "phantom", "DSC++", seed=4, preset="demo", overrides={**TINY, "epochs": 1}
    )
    third = stages.train(other, data, tmp_path / "c", work)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(weights(first), weights(third), strict=True)
    )


def test_a_training_is_complete(data, work, tmp_path):
    run = stages.train(task(4), data, tmp_path / "r", work)
    rows = list(csv.DictReader(run.path("history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.1)
    best = min(float(row["val_loss"]) for row in rows)
    assert run.record["best_val_loss"] == pytest.approx(best)
    assert run.record["state"] == "trained"
    assert run.record["times"]["epochs"] == 4
    assert run.record["split"]["test"] == list(phantom.split(data)["test"])
    assert run.record["overrides"]["epochs"] == 4
    assert run.record["files"].keys() == {"history.csv", "model.keras"}
    assert not run.path("state.npz").exists()
    # The same command again does nothing, not even touch a file.
    before = run.path("run.json").stat().st_mtime_ns
    stages.train(task(4), data, tmp_path / "r", work)
    assert run.path("run.json").stat().st_mtime_ns == before


def test_the_checkpoint_is_the_epoch_of_the_lowest_validation_loss(
    data, work, tmp_path
):
    run = stages.train(task(6, "CE"), data, tmp_path / "r", work)
    history = list(csv.DictReader(run.path("history.csv").open()))
    best = min(history, key=lambda row: float(row["val_loss"]))
    until = stages.train(task(int(best["epoch"]), "CE"), data, tmp_path / "until", work)
    for a, b in zip(weights(run), weights(until), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(BaseException):
    """What a kill looks like from inside: no handler for exceptions sees it."""


def stop_after(monkeypatch, epochs: int) -> None:
    """Make the process die right after an epoch's state was written."""
    original = callbacks.StateWriter.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        self.interval = 0
        original(self, epoch, logs)
        if epoch + 1 == epochs:
            raise Killed

    monkeypatch.setattr(callbacks.StateWriter, "on_epoch_end", on_epoch_end)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resume_is_exact_through_plateaus_and_early_stopping(
    data, work, tmp_path, monkeypatch, stop
):
    # No step is an improvement by 1, so patience runs out on the way, and a reset of
    # either callback's state shows as another learning rate or another last epoch.
    settings = {"min_delta": 1.0, "stopping_patience": 6, "plateau_patience": 2}
    alone = stages.train(task(9, **settings), data, tmp_path / "alone", work)
    rows = list(csv.DictReader(alone.path("history.csv").open()))
    assert len(rows) == 7
    assert len({row["learning_rate"] for row in rows}) > 1
    with monkeypatch.context() as patched:
        stop_after(patched, stop)
        with pytest.raises(Killed):
            stages.train(task(9, **settings), data, tmp_path / "cut", work)
    cut = stages.train(task(9, **settings), data, tmp_path / "cut", work)
    same_run(alone, cut)


def test_optimiser_and_epoch_survive_the_state_file(data, work, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(Killed):
            stages.train(task(4), data, tmp_path / "r", work)
    material, _ = stages._prepare(task(4), data, work)
    model = fit._compiled(task(4), material)
    progress = state.load(tmp_path / "r" / "state.npz", model)
    assert progress.epoch == 2
    assert len(progress.history) == 2
    assert int(model.optimizer.iterations) == 8
    momentum = [v for v in model.optimizer.variables if "momentum" in v.path]
    assert any(float(keras.ops.max(keras.ops.abs(v))) > 0 for v in momentum)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a state"])
def test_a_damaged_state_is_named(data, work, tmp_path, monkeypatch, content):
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        with pytest.raises(Killed):
            stages.train(task(3), data, tmp_path / "r", work)
    (tmp_path / "r" / "state.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.npz"):
        stages.train(task(3), data, tmp_path / "r", work)


def test_killed_at_random_moments(data, tmp_path):
    """SIGKILL from outside, five times, then the run left alone: the same run."""
    arguments = ["train", "--dataset", "phantom", "--data", str(data), "--loss", "DSC"]
    arguments += ["--preset", "demo", "--seed", "5", "--epochs", "150"]
    for key, value in TINY.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]

    def start(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipelines.cli",
                *arguments,
                "--output",
                str(tmp_path / name),
                "--work",
                str(tmp_path / "work"),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    assert start("alone").wait() == 0
    chance = random.Random(0)
    killed = 0
    for _ in range(5):
        process = start("cut")
        path = tmp_path / "cut" / "run.json"
        while not path.exists() and process.poll() is None:
            time.sleep(0.05)
        try:
            process.wait(chance.uniform(0, 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 2
    assert start("cut").wait() == 0
    same_run(runs.Run.open(tmp_path / "alone"), runs.Run.open(tmp_path / "cut"))


def test_other_settings_or_data_are_refused(data, work, tmp_path, monkeypatch):
    output = tmp_path / "r"
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        with pytest.raises(Killed):
            stages.train(task(3), data, output, work)
    with pytest.raises(InputError, match=r"settings\.learning_rate: the run has 0\.1"):
        stages.train(task(3, learning_rate=0.2), data, output, work)
    with pytest.raises(InputError, match="loss: the run has 'DSC\\+\\+'"):
        stages.train(task(3, "CE"), data, output, work)
    settings = phantom.Settings(training=4, validation=2, test=3, size=32, seed=2)
    other = phantom.generate(settings, tmp_path / "other")
    with pytest.raises(InputError, match="data_hash: the run has"):
        stages.train(task(3), other, output, work)
    done = stages.train(task(3), data, output, work)
    with pytest.raises(InputError, match="data_hash: the run has"):
        stages.train(task(3), other, output, work)
    assert done.state == "trained"


def test_a_loss_that_is_not_finite_stops_the_run(data, work, tmp_path):
    chosen = task(3, "CE", learning_rate=1e30)
    with pytest.raises(callbacks.NotFinite) as caught:
        stages.train(chosen, data, tmp_path / "r", work)
    kept = np.load(tmp_path / "r" / "not-finite.npz")
    assert str(kept["case"]) in phantom.split(data)["training"]
    assert str(kept["case"]) in str(caught.value)
    assert kept["image"].shape == (1, 32, 32, 3)
    assert runs.Run.open(tmp_path / "r").state == "training"


def test_predict_and_evaluate(data, work, tmp_path):
    run = stages.train(task(2), data, tmp_path / "r", work)
    with pytest.raises(InputError, match="dscpp predict"):
        stages.evaluate(run.folder, data, work)
    stages.predict(run.folder, data, work)
    split = phantom.split(data)
    cases = {*split["validation"], *split["test"]}
    assert {p.stem for p in run.path("probabilities").iterdir()} == cases
    found = np.load(run.path("probabilities") / f"{split['test'][0]}.npy")
    assert found.shape == (32, 32, 2)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-4)
    done = stages.evaluate(run.folder, data, work)
    rows = list(csv.DictReader(done.path("cases.csv").open()))
    assert {(row["case"], row["split"]) for row in rows} == {
        (case, name) for name in ("validation", "test") for case in split[name]
    }
    label = phantom.references(data, split["test"][0])["observer1"]
    row = next(row for row in rows if row["case"] == split["test"][0])
    p = np.clip(found[..., 1].astype(float), 1e-7, 1 - 1e-7)
    expected = -np.mean(np.where(label == 1, np.log(p), np.log(1 - p)))
    assert float(row["nll"]) == pytest.approx(expected, rel=1e-6)
    assert done.state == "evaluated"
    assert list(done.path("pictures").glob("*.png"))


def test_a_model_of_another_architecture_is_refused(data, work, tmp_path):
    run = stages.train(task(1), data, tmp_path / "r", work)
    unet.UNet(filters=6, depth=2).create_model_2D((32, 32, 3), 2).save(
        run.path("model.keras")
    )
    with pytest.raises(InputError, match="another architecture"):
        stages.predict(run.folder, data, work)
    run.path("model.keras").write_text("no model")
    with pytest.raises(InputError, match="cannot be loaded"):
        stages.predict(run.folder, data, work)
    run.path("model.keras").unlink()
    with pytest.raises(InputError, match="not kept in git"):
        stages.predict(run.folder, data, work)


def test_estimate(data, work):
    found = stages.estimate(task(7), data, work)
    assert found["epochs"] == 7
    assert found["seconds_per_epoch"] > 0
    assert found["hours"] == pytest.approx(found["seconds_per_epoch"] * 7 / 3600)


def test_predicting_needs_no_finished_state_twice(data, work, tmp_path):
    run = stages.train(task(1), data, tmp_path / "r", work)
    stages.predict(run.folder, data, work)
    stages.evaluate(run.folder, data, work)
    run.path("model.keras").unlink()
    assert stages.predict(run.folder, data, work).state == "evaluated"
