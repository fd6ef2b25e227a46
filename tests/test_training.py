"""Training: the network, the callbacks' state, exact resume, refusals."""

from __future__ import annotations

import csv
import functools
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.files.writing import sweep
from pipelines import stages
from pipelines.environment import commits, provenance
from pipelines.runs import run as runs
from pipelines.training import callbacks, fit, state, tracking, unet
from pipelines.training.task import Task

TINY = {"input_shape": [32, 32], "filters": 4, "depth": 1, "plateau_patience": 2}
# No step is an improvement by 1, so patience runs out on the way, and a reset of either
# callback's state shows as another learning rate or another last epoch.
PLATEAUS = {"epochs": 9, "min_delta": 1.0, "stopping_patience": 6}


def task(epochs: int = 6, loss: str = "DSC++", seed: int = 3, **overrides) -> Task:
    return Task.make(
        "phantom",
        loss,
        seed=seed,
        preset="demo",
        overrides={**TINY, "epochs": epochs, **overrides},
    )


# Trainings cost seconds each, for every backend: those that several tests look at are
# made once; a test that changes one takes a copy.


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A phantom set of 4 training, 2 validation and 3 test images, 32x32."""
    settings = phantom.Settings(training=4, validation=2, test=3, size=32, seed=1)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def done(data, work, tmp_path_factory) -> runs.Run:
    """A run of 4 epochs, trained, predicted and evaluated."""
    run = stages.train(task(4), data, tmp_path_factory.mktemp("done") / "r", work)
    stages.predict(run.folder, data, work)
    return stages.evaluate(run.folder, data, work)


@pytest.fixture(scope="module")
def alone(data, work, tmp_path_factory) -> runs.Run:
    """A run through plateaus to its early end, never stopped."""
    output = tmp_path_factory.mktemp("alone") / "r"
    return stages.train(task(**PLATEAUS), data, output, work)


@pytest.fixture(scope="module")
def cut(data, work, tmp_path_factory) -> runs.Run:
    """A run of 3 epochs that was killed after the first."""
    output = tmp_path_factory.mktemp("cut") / "r"
    train_until_killed(task(3), data, output, work, after=1)
    return runs.Run.open(output)


def copy(run: runs.Run, folder: Path, **changes) -> runs.Run:
    copied = runs.Run.open(shutil.copytree(run.folder, folder))
    if changes:
        copied.update(**changes)
    return copied


def weights(run: runs.Run) -> list[np.ndarray]:
    model = keras.models.load_model(run.path("model.keras"), compile=False)
    return model.get_weights()


def history(run: runs.Run) -> list[dict[str, str]]:
    with run.path("history.csv").open() as file:
        return list(csv.DictReader(file))


def same_run(one: runs.Run, other: runs.Run) -> None:
    """history.csv and the weights, to the bit."""
    assert one.path("history.csv").read_text() == other.path("history.csv").read_text()
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(BaseException):
    """What a kill looks like from inside: no handler for exceptions sees it."""


def train_until_killed(
    chosen: Task, data: Path, output: Path, work: Path, after: int
) -> None:
    """Train, and die right after the state of an epoch was written."""
    original = callbacks.StateWriter.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        self.interval = 0
        original(self, epoch, logs)
        if epoch + 1 == after:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(callbacks.StateWriter, "on_epoch_end", on_epoch_end)
        with pytest.raises(Killed):
            stages.train(chosen, data, output, work)


@pytest.mark.backend
@pytest.mark.slow
def test_the_seed_decides_the_run(data, work, tmp_path, done):
    same_run(done, stages.train(task(4), data, tmp_path / "same", work))
    other = stages.train(task(1, seed=4), data, tmp_path / "other", work)
    assert history(other)[0]["loss"] != history(done)[0]["loss"]


@pytest.mark.backend
def test_training_writes_all_files(data, work, done):
    rows = history(done)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.1)
    best = min(float(row["val_loss"]) for row in rows)
    assert done.record["best_val_loss"] == pytest.approx(best)
    assert done.record["state"] == "evaluated"
    assert done.record["times"]["epochs"] == 4
    assert done.record["split"]["test"] == list(phantom.vessels.split(data)["test"])
    assert done.record["overrides"]["epochs"] == 4
    assert done.record["threads"] == provenance.threads()
    assert done.record["variables"] == provenance.variables()
    assert "environment_changes" not in done.record
    made = {"history.csv", "model.keras", "cases.csv", "histograms.npz"}
    made.add("probabilities/dscpp.sha256")
    assert done.record["files"].keys() == made
    # The same command again does nothing, not even touch a file.
    before = done.path("run.json").stat().st_mtime_ns
    stages.train(task(4), data, done.folder, work)
    assert done.path("run.json").stat().st_mtime_ns == before


def test_the_model_kept_has_the_lowest_validation_loss(data, work, done):
    training_data, _ = stages._prepare(task(4), data, work)
    model = fit._compiled(task(4), training_data)
    model.set_weights(weights(done))
    found = model.evaluate(
        fit._batches(task(4), training_data, "validation"), verbose=0
    )
    best = min(float(row["val_loss"]) for row in history(done))
    assert found == pytest.approx(best, rel=1e-5)


def test_weights_are_kept_at_each_new_lowest_loss_only(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(state, "snapshot", lambda model, progress: progress.epoch)
    monkeypatch.setattr(state, "save", lambda path, epoch: written.append(epoch))
    progress = state.Progress()
    writer = callbacks.StateWriter(tmp_path / "state.npz", progress, [], interval=3600)
    kept = []
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 1.0, 0.5, 0.7]):
        weights = [np.array([epoch])]
        model = SimpleNamespace(stop_training=False, get_weights=lambda w=weights: w)
        writer.set_model(model)
        writer.on_epoch_end(epoch, {"val_loss": loss})
        kept.append(int(progress.best_weights[0][0]))
    assert kept == [0, 1, 1, 1, 4, 4]
    assert progress.best == 0.5
    # The first state is written at once, the next when the interval is over.
    assert written == [1]
    # What is left is written at the end, once.
    writer.flush()
    writer.flush()
    assert written == [1, 6]


@pytest.mark.slow
def test_ctrl_c_in_an_epoch_loses_that_epoch_alone(
    data, work, tmp_path, monkeypatch, done
):
    """The state that is written is that of the last whole epoch, not of the moment."""
    steps = []

    def stop_in_epoch_4(self, batch, logs=None):
        steps.append(batch)
        if len(steps) == 4 * 3 + 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # After the first epoch, the next write by the clock would be in an hour.
        rarely = functools.partial(callbacks.StateWriter, interval=3600)
        patched.setattr(callbacks, "StateWriter", rarely)
        patched.setattr(callbacks.ProgressBar, "on_train_batch_end", stop_in_epoch_4)
        with pytest.raises(KeyboardInterrupt):
            stages.train(task(4), data, tmp_path / "r", work)
    with np.load(tmp_path / "r" / "state.npz") as file:
        assert json.loads(str(file["progress"]))["epoch"] == 3
    same_run(done, stages.train(task(4), data, tmp_path / "r", work))


@pytest.mark.backend
@pytest.mark.slow
def test_resume_is_exact_through_plateaus_and_early_stopping(
    data, work, tmp_path, alone
):
    rows = history(alone)
    assert len(rows) == 7
    assert len({row["learning_rate"] for row in rows}) > 1
    for epoch in (2, 5):
        train_until_killed(task(**PLATEAUS), data, tmp_path / "cut", work, epoch)
    (tmp_path / "cut" / ".dscpp-abcd1234-model.keras").write_text("half written")
    sweep.cache_clear()  # as in a new process
    run = stages.train(task(**PLATEAUS), data, tmp_path / "cut", work)
    same_run(alone, run)
    assert not list(run.folder.glob(".dscpp-*"))


@pytest.mark.backend
def test_optimiser_and_epoch_survive_the_state_file(data, work, cut):
    training_data, _ = stages._prepare(task(3), data, work)
    model = fit._compiled(task(3), training_data)
    progress = state.load(cut.path("state.npz"), model)
    assert progress.epoch == 1
    assert len(progress.history) == 1
    assert int(model.optimizer.iterations) == 4
    momentum = [v for v in model.optimizer.variables if "momentum" in v.path]
    assert any(float(keras.ops.max(keras.ops.abs(v))) > 0 for v in momentum)


def test_the_state_of_another_training_is_refused(data, work, cut):
    """Of the same network: nothing but what it says tells it apart."""
    training_data, _ = stages._prepare(task(3), data, work)
    model, path = fit._compiled(task(3), training_data), cut.path("state.npz")
    of = fit._fingerprint(runs.Run.open(cut.folder))
    assert state.load(path, model, of).of == of
    with pytest.raises(InputError, match=r"state\.npz: .*of another training"):
        state.load(path, model, "another")


@pytest.mark.slow
def test_same_number_in_another_form_is_the_same_training(data, work, tmp_path):
    """Settings of 0 and 0.0 are equal, and so is what the state says it is of."""
    out = tmp_path / "run"
    for epochs, delta in ((1, 0), (2, 0.0)):
        stages.train(task(epochs, min_delta=delta), data, out, work)
    assert len(runs.Run.open(out).path("history.csv").read_text().split()) == 3


@pytest.mark.slow
def test_a_run_in_float16_resumes_exactly_with_its_loss_scale(data, work, tmp_path):
    chosen = task(3, precision="mixed_float16")
    alone = stages.train(chosen, data, tmp_path / "alone", work)
    train_until_killed(chosen, data, tmp_path / "cut", work, after=2)
    training_data, _ = stages._prepare(chosen, data, work)
    model = fit._compiled(chosen, training_data)
    state.load(tmp_path / "cut" / "state.npz", model)
    # Steps since the scale was last changed: it has been counting, not begun anew.
    assert int(model.optimizer.step_counter) > 0
    same_run(alone, stages.train(chosen, data, tmp_path / "cut", work))


@pytest.mark.backend
def test_the_model_file_is_of_keras_own_layers(done):
    with zipfile.ZipFile(done.path("model.keras")) as file:
        config = json.loads(file.read("config.json"))
    for layer in config["config"]["layers"]:
        assert layer["module"] == "keras.layers", layer["class_name"]
        assert layer["config"].get("data_format") in (None, "channels_last")


def encrypted(content: bytes) -> bytes:
    """A flipped bit in the archive's list says so of its first entry."""
    flags = content.index(b"PK\x01\x02") + 8
    return content[:flags] + bytes([content[flags] ^ 1]) + content[flags + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda _: b"PK\x03\x04 not a state", encrypted]
)
def test_a_damaged_state_is_named(data, work, tmp_path, cut, damage):
    run = copy(cut, tmp_path / "r")
    path = run.path("state.npz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"state\.npz"):
        stages.train(task(3), data, run.folder, work)


# `dscpp` as it is, but for a state after each epoch, so that few epochs are enough.
OFTEN = """
import functools, sys
from pipelines import cli
from pipelines.training import callbacks
callbacks.StateWriter = functools.partial(callbacks.StateWriter, interval=0)
sys.exit(cli.main())
"""


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_killed_at_random_moments(data, work, tmp_path):
    """SIGKILL from outside, twice, then left alone: the same run."""
    chosen = task(40, "DSC", stopping_patience=40)
    alone = stages.train(chosen, data, tmp_path / "alone", work)
    cut, output = tmp_path / "cut", tmp_path / "cut" / "state.npz"
    arguments = ["train", "--dataset", "phantom", "--data", str(data), "--loss", "DSC"]
    arguments += ["--preset", "demo", "--seed", "3", "--work", str(work)]
    arguments += ["--output", str(cut)]
    for key, value in chosen.overrides.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", OFTEN, *arguments],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def saved() -> int:
        try:
            return output.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    chance = random.Random(0)
    killed = 0
    for _ in range(2):
        before, process = saved(), start()
        # From its first saved state on: before that, it only imports.
        while saved() == before and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(chance.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed
    assert start().wait() == 0
    same_run(alone, runs.Run.open(cut))


@pytest.mark.slow
def test_finished_run_continues_exactly_with_more_epochs(data, work, tmp_path, done):
    whole = stages.train(task(6), data, tmp_path / "whole", work)
    run = copy(done, tmp_path / "r")
    longer = stages.train(task(6), data, run.folder, work)
    same_run(whole, longer)
    assert (longer.state, longer.record["times"]["epochs"]) == ("trained", 6)
    for key in ("overrides", "settings"):
        assert longer.record[key] == whole.record[key]
    before = longer.path("run.json").read_bytes()
    assert stages.train(task(6), data, run.folder, work).state == "trained"
    assert longer.path("run.json").read_bytes() == before
    with pytest.raises(InputError, match=r"settings\.epochs: the run has 6"):
        stages.train(task(5), data, run.folder, work)


@pytest.mark.slow
def test_early_stopped_run_is_unchanged_by_more_epochs(
    data, work, tmp_path, alone, capsys
):
    run = copy(alone, tmp_path / "r")
    found = stages.train(task(**{**PLATEAUS, "epochs": 99}), data, run.folder, work)
    assert "ended by itself after 7 epochs" in capsys.readouterr().out
    same_run(alone, found)
    assert found.record["settings"]["epochs"] == 99


def test_run_that_cannot_continue_says_why(data, work, tmp_path, done):
    run = copy(done, tmp_path / "r")
    with pytest.raises(InputError, match=r"settings\.learning_rate: the run has 0\.1"):
        stages.train(task(6, learning_rate=0.2), data, run.folder, work)
    run.path("state.npz").unlink()
    with pytest.raises(InputError, match="with up to 6 epochs, found none") as got:
        stages.train(task(6), data, run.folder, work)
    assert f"--from {run.folder}" in str(got.value)
    preset = copy(done, tmp_path / "phantom" / "demo" / "runs" / "dscpp-s3")
    with pytest.raises(InputError, match="the 4 epochs of the preset demo"):
        stages.train(task(6), data, preset.folder, work)
    for folder in (run.folder, preset.folder):
        assert runs.Run.open(folder).state == "evaluated"


@pytest.mark.slow
def test_a_training_begins_with_the_weights_of_another_run(data, work, tmp_path, done):
    """With steps of no length it ends with them too."""
    still = {"learning_rate": 1e-12, "min_learning_rate": 1e-12, "epochs": 1}
    first, *rest = phantom.vessels.split(data)["training"]

    def begin(output: str, initial=done, **change) -> runs.Run:
        parts = {**phantom.vessels.split(data), "training": rest, **change}
        file = tmp_path / "split.json"
        file.write_text(json.dumps(parts))
        chosen = Task.make(
            "phantom", "CE", preset="demo", split_files=[file], initial=initial,
            overrides=TINY | still,
        )  # fmt: skip
        return stages.train(chosen, data, tmp_path / output, work)

    run = begin("r")
    for a, b in zip(weights(run), weights(done), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert run.record["initial"]["run"] == done.name
    sha256 = done.record["files"]["model.keras"]
    assert run.record["overrides"]["initial_weights"] == sha256
    assert begin("r").state == "trained"  # the same command: nothing to do
    with pytest.raises(InputError, match=r"overrides\.initial_weights: the run has"):
        begin("r", initial=None)
    # An image that these weights have seen, though not in this training, is tested on.
    tested = phantom.vessels.split(data)["test"]
    for initial in (done, run):
        with pytest.raises(InputError, match=f"found 1 that it was: {first}"):
            begin("leaking", initial, test=[first, *tested])
    assert not runs.is_run(tmp_path / "leaking")


def test_weights_of_another_network_are_refused(done):
    with pytest.raises(InputError, match="network with filters 2, found 4"):
        Task.make(
            "phantom", "CE", preset="demo", initial=done,
            overrides={**TINY, "filters": 2},
        )  # fmt: skip
    with pytest.raises(InputError, match="network with axes 3, found 2"):
        Task.make("kits19", "CE", preset="demo", initial=done,
                  overrides={"filters": 4, "depth": 1})  # fmt: skip


def test_other_settings_or_data_are_refused(data, work, tmp_path, cut, done):
    with pytest.raises(InputError, match=r"settings\.learning_rate: the run has 0\.1"):
        stages.train(task(3, learning_rate=0.2), data, cut.folder, work)
    with pytest.raises(InputError, match="loss: the run has 'DSC\\+\\+'"):
        stages.train(task(3, "CE"), data, cut.folder, work)
    settings = phantom.Settings(training=4, validation=2, test=3, size=32, seed=2)
    other = phantom.generate(settings, tmp_path / "other")
    with pytest.raises(InputError, match="data_hash: the run has"):
        stages.train(task(3), other, cut.folder, work)
    with pytest.raises(InputError, match="data_hash: the run has"):
        stages.train(task(4), other, done.folder, work)
    assert runs.Run.open(done.folder).state == "evaluated"


def test_training_resumed_elsewhere_is_reported_once(
    data, work, tmp_path, monkeypatch, capsys, cut
):
    run = copy(cut, tmp_path / "r", commit="a", threads=64)
    run.path("state.npz").unlink()
    monkeypatch.setattr(commits, "commit", lambda: "b")
    monkeypatch.setattr(fit, "train", lambda *given: None)
    for _ in range(2):  # The second time nothing has changed any more.
        stages.train(task(3), data, run.folder, work)
    said = capsys.readouterr().err
    assert said.count("goes on in another environment") == 1
    assert "  commit: now b" in said
    here = provenance.threads()
    assert f"  threads: now {here}" in said
    record = runs.Run.open(run.folder).record
    assert record["environment_changes"] == [
        {"stage": "train", "commit": "b", "threads": here}
    ]
    # What it began in is still there: both commits took part.
    assert (record["commit"], record["threads"]) == ("a", 64)


def test_files_that_are_no_run_are_left_alone(data, work, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"found thesis\.tex; choose another"):
        stages.train(task(1), data, tmp_path, work)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.backend
def test_a_loss_that_is_not_finite_stops_the_run(data, work, tmp_path):
    chosen = task(3, "CE", learning_rate=1e30)
    with pytest.raises(callbacks.NotFinite) as caught:
        stages.train(chosen, data, tmp_path / "r", work)
    kept = np.load(tmp_path / "r" / "not-finite.npz")
    assert str(kept["case"]) in phantom.vessels.split(data)["training"]
    assert str(kept["case"]) in str(caught.value)
    assert kept["image"].shape == (1, 32, 32, 3)
    assert runs.Run.open(tmp_path / "r").state == "training"


@pytest.mark.slow
def test_weights_that_are_not_finite_are_not_kept(work, tmp_path):
    # One step an epoch: its own loss is finite, and only validation sees what it did.
    settings = phantom.Settings(training=1, validation=2, test=1, size=32, seed=1)
    data = phantom.generate(settings, tmp_path / "phantom")
    chosen = task(3, "CE", learning_rate=1e30)
    with pytest.raises(callbacks.NotFinite, match="the validation loss became") as got:
        stages.train(chosen, data, tmp_path / "r", work)
    kept = np.load(tmp_path / "r" / "not-finite.npz")
    assert str(kept["case"]) in phantom.vessels.split(data)["validation"]
    assert str(kept["case"]) in str(got.value)
    assert not (tmp_path / "r" / "model.keras").exists()
    assert not (tmp_path / "r" / "state.npz").exists()


@pytest.mark.backend
def test_predict_and_evaluate(data, done):
    split = phantom.vessels.split(data)
    cases = {*split["validation"], *split["test"]}
    assert {p.stem for p in done.path("probabilities").glob("*.npy")} == cases
    found = np.load(done.path("probabilities") / f"{split['test'][0]}.npy")
    assert found.shape == (32, 32, 2)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-4)
    with done.path("cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["case"], row["split"]) for row in rows} == {
        (case, name) for name in ("validation", "test") for case in split[name]
    }
    label = phantom.vessels.references(data, split["test"][0])["observer1"]
    row = next(row for row in rows if row["case"] == split["test"][0])
    p = np.clip(found[..., 1].astype(float), 1e-7, 1 - 1e-7)
    expected = -np.mean(np.where(label == 1, np.log(p), np.log(1 - p)))
    assert float(row["nll"]) == pytest.approx(expected, rel=1e-6)
    assert list(done.path("pictures").glob("*.png"))


def test_stages_come_in_order(data, work, tmp_path, cut, done):
    with pytest.raises(InputError, match="dscpp train"):
        stages.predict(cut.folder, data, work)
    trained = copy(done, tmp_path / "r", state="trained")
    with pytest.raises(InputError, match="dscpp predict"):
        stages.evaluate(trained.folder, data, work)


def test_a_model_that_is_not_the_runs_is_refused(data, work, tmp_path, done):
    run = copy(done, tmp_path / "r", state="trained")
    unet.UNet(filters=6, depth=2).create_model_2D((32, 32, 3), 2).save(
        run.path("model.keras")
    )
    with pytest.raises(InputError, match="another architecture"):
        stages.predict(run.folder, data, work)
    unet.UNet(filters=4, depth=1).create_model_2D((32, 32, 3), 2).save(
        run.path("model.keras")
    )
    with pytest.raises(InputError, match="the run's own weights"):
        stages.predict(run.folder, data, work)
    given = keras.Input((32, 32, 3))
    keras.Model(given, [given, given]).save(run.path("model.keras"))
    with pytest.raises(InputError, match="a model with 1 and 2"):
        stages.predict(run.folder, data, work)
    run.path("model.keras").write_text("no model")
    with pytest.raises(InputError, match="no whole archive"):
        stages.predict(run.folder, data, work)
    run.path("model.keras").unlink()
    with pytest.raises(InputError, match="not kept in git"):
        stages.predict(run.folder, data, work)


@pytest.mark.slow
def test_estimate_of_training_time(data, work):
    found = stages.estimate(task(7), data, work)
    assert found["epochs"] == 7
    assert found["seconds_per_epoch"] > 0


def test_evaluated_run_needs_no_model_to_predict_again(data, work, tmp_path, done):
    run = copy(done, tmp_path / "r")
    run.path("model.keras").unlink()
    assert stages.predict(run.folder, data, work).state == "evaluated"


def test_missing_probabilities_are_made_again(data, work, tmp_path, done, capsys):
    run = copy(done, tmp_path / "r")
    shutil.rmtree(run.path("probabilities"))
    with pytest.raises(InputError, match="dscpp predict --again"):
        stages.evaluate(run.folder, data, work, again=True)
    capsys.readouterr()
    assert stages.predict(run.folder, data, work, again=True).state == "predicted"
    assert "is set back from 'evaluated' to 'predicted'" in capsys.readouterr().out
    found = stages.evaluate(run.folder, data, work)
    for name in ("cases.csv", "histograms.npz"):
        assert found.record["files"][name] == done.record["files"][name], name


def test_a_record_edited_by_hand_is_named(data, work, tmp_path, done):
    run = copy(done, tmp_path / "r", state="trained", preset="papr")
    with pytest.raises(InputError, match=r"run\.json: expected the settings"):
        stages.predict(run.folder, data, work)


def test_state_is_saved_less_often_on_a_slow_disk(tmp_path, monkeypatch):
    clock, written = [0.0], []

    def save(path, epoch):
        clock[0] += 0.0625
        written.append(epoch)

    monkeypatch.setattr(
        callbacks, "time", types.SimpleNamespace(monotonic=lambda: clock[0])
    )
    monkeypatch.setattr(state, "snapshot", lambda model, progress: progress.epoch)
    monkeypatch.setattr(callbacks.state, "save", save)
    model = SimpleNamespace(stop_training=False, get_weights=list)
    writer = callbacks.StateWriter(tmp_path / "state.npz", state.Progress(), [], 1.0)
    writer.set_model(model)
    for epoch in range(12):
        clock[0] += 2
        writer.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0})
    # A write of 0.0625 s is 1 % of 6.25 s: every fourth epoch of 2 s.
    assert written == [1, 5, 9]


class Fetched(float):
    """A loss that lies on a device: how often it was asked for is counted."""

    times = 0

    def __float__(self):
        Fetched.times += 1
        return float.__add__(self, 0.0)


def test_losses_are_read_once_a_second_and_the_first_bad_step_is_found(
    tmp_path, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr(
        callbacks, "time", types.SimpleNamespace(monotonic=lambda: clock[0])
    )
    drawn = []

    class Items(SimpleNamespace):
        def __getitem__(self, index):
            drawn.append(index)
            return np.full((1, 2), index), np.zeros((1, 2))

    items = Items(epoch=2, case="case {}".format)
    stop = callbacks.NotFiniteStop(items, Items(), tmp_path / "not-finite.npz")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = callbacks.ProgressBar(1, 100, 0, "run")
    monkeypatch.setattr(Fetched, "times", 0)
    for step in range(40):
        clock[0] += 0.01
        loss = Fetched("nan" if step > 30 else 1.0)
        for callback in (bar, stop):
            callback.on_train_batch_end(step, {"loss": loss})
    assert Fetched.times == 1  # the bar's first; nothing is known of the bad ones yet
    assert bar.bar.n == 40
    with pytest.raises(callbacks.NotFinite, match="in epoch 3 at case case 31;"):
        stop.on_epoch_end(2, {})
    assert drawn == [31]
    assert np.load(stop.path)["image"].tolist() == [[31, 31]]


def test_a_long_epoch_does_not_hide_a_bad_step(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(
        callbacks, "time", types.SimpleNamespace(monotonic=lambda: clock[0])
    )
    kind = type("Items", (dict,), {"epoch": 0, "case": lambda self, index: "a"})
    items = kind({1: (np.zeros(1), np.zeros(1))})
    stop = callbacks.NotFiniteStop(items, items, tmp_path / "not-finite.npz")
    stop.on_train_batch_end(0, {"loss": 1.0})
    stop.on_train_batch_end(1, {"loss": math.inf})
    clock[0] += 1.5
    with pytest.raises(callbacks.NotFinite, match="the loss became inf"):
        stop.on_train_batch_end(2, {"loss": math.inf})


# --- what is logged elsewhere ----------------------------------------------------


@pytest.mark.slow
def test_tracking_changes_no_result_and_continues_with_the_run(
    data, work, cut, tmp_path, monkeypatch
):
    """The second and third epoch of a run that was killed after its first."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    util = pytest.importorskip("tensorboard.util.tensor_util")
    mlflow = pytest.importorskip("mlflow")
    plain = stages.train(task(3), data, copy(cut, tmp_path / "plain").folder, work)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlflow")
    monkeypatch.setenv(tracking.VARIABLE, "tensorboard, mlflow")
    run = stages.train(task(3), data, copy(cut, tmp_path / "tracked").folder, work)
    mlflow.end_run()  # which waits for what is still being sent
    same_run(plain, run)
    expected = [pytest.approx(float(row["val_loss"])) for row in history(run)[1:]]
    board = accumulator.EventAccumulator(str(run.path("tensorboard") / "validation"))
    board.Reload()
    shown = [board.Tensors("epoch_loss")[n] for n in range(2)]
    assert [each.step for each in shown] == [1, 2]
    assert [float(util.make_ndarray(e.tensor_proto)) for e in shown] == expected
    name = json.loads(run.path("mlflow.json").read_text())["run_id"]
    kept = mlflow.MlflowClient().get_metric_history(name, "val_loss")
    assert [(each.step, each.value) for each in kept] == [
        (1, expected[0]),
        (2, expected[1]),
    ]
    assert mlflow.get_run(name).data.params["loss"] == "DSC++"
    # Asked for more, it goes on in the same run there.
    stages.train(task(4), data, run.folder, work)
    assert json.loads(run.path("mlflow.json").read_text())["run_id"] == name


@pytest.mark.parametrize(
    ("asked", "here", "words"),
    [
        ("wandb", True, "any of tensorboard, mlflow, received 'wandb'"),
        ("mlflow", False, "mlflow: expected to be installed"),
    ],
)
def test_invalid_tracking_is_refused_before_a_run_starts(
    data, work, tmp_path, monkeypatch, asked, here, words
):
    monkeypatch.setenv(tracking.VARIABLE, asked)
    monkeypatch.setattr(tracking.installed, "is_here", lambda _: here)
    with pytest.raises(InputError, match=words):
        tracking.requested()
    monkeypatch.setattr(tracking.installed, "require_training", lambda *_: None)
    with pytest.raises(InputError, match=words):
        stages.train(task(1), data, tmp_path / "run", work)
    assert not (tmp_path / "run" / "run.json").exists()
