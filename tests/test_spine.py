"""From raw files to probabilities: MIScnn is on the way, and nothing goes round it."""

import csv
from collections import Counter

import numpy as np
import pytest

from data_io.datasets import phantom
from data_io.prepare import augment
from data_io.prepare.miscnn_compat import Preprocessor, Resize
from pipelines import stages
from pipelines.training.task import Task

EPOCHS = 2
TINY = {"input_shape": [32, 32], "filters": 2, "depth": 1, "epochs": EPOCHS}


@pytest.fixture
def data(tmp_path):
    settings = phantom.Settings(training=3, validation=2, test=2, size=32, seed=2)
    return phantom.generate(settings, tmp_path / "phantom")


def train(data, folder):
    """Trains a run; returns it, its losses and its validation losses by epoch."""
    task = Task.make("phantom", "CE", seed=0, preset="demo", overrides=TINY)
    run = stages.train(task, data, folder, folder.parent / "work")
    with run.path("history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return run, [[float(row[key]) for row in rows] for key in ("loss", "val_loss")]


def predict(data, run):
    """Predicts with a run; returns the probabilities of its four cases."""
    stages.predict(run.folder, data, run.folder.parent / "work")
    paths = sorted(run.path("probabilities").glob("*.npy"))
    assert len(paths) == 4
    return [np.load(path) for path in paths]


def differ(found):
    return any(not np.array_equal(one, found[0]) for one in found[1:])


@pytest.mark.slow
def test_training_and_prediction_use_only_prepared_data(data, tmp_path, monkeypatch):
    """What MIScnn prepares and `augment` draws, and, to predict, MIScnn's own way."""
    run, losses = train(data, tmp_path / "as-it-is")
    assert np.min(losses) > 0.1
    found = predict(data, run)
    assert differ(found)
    np.testing.assert_allclose(found[0].sum(-1), 1, atol=1e-6)

    called = Counter()

    def change(owner, name, to_what):
        original = getattr(owner, name)

        def changed(self, *args, **kwargs):
            called[name] += 1
            return to_what(original(self, *args, **kwargs))

        monkeypatch.setattr(owner, name, changed)

    def nothing(*args):
        called["carry_out"] += 1
        return [0 * array for array in drawn(*args)]

    drawn = augment.carry_out
    monkeypatch.setattr(augment, "carry_out", nothing)
    change(
        Preprocessor.__mro__[1], "run", lambda batches: [(0 * b[0],) for b in batches]
    )
    change(Resize, "postprocessing", lambda softmax: softmax / 2)
    run, losses = train(data, tmp_path / "emptied")
    # No class anywhere: cross entropy is 0 then, whatever the network says.
    assert losses == [[0] * EPOCHS] * 2
    # Three cases for training, two for validation; Keras may look at some twice.
    assert called["carry_out"] >= (3 + 2) * EPOCHS
    called.clear()
    found = predict(data, run)
    assert not differ(found)
    np.testing.assert_allclose(found[0].sum(-1), 0.5, atol=1e-6)
    assert called == {"run": 4, "postprocessing": 4}
