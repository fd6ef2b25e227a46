"""Volumes from raw files to a table, through all stages, and always MIScnn's way."""

import contextlib
import csv
from collections import Counter

import keras
import nibabel
import numpy as np
import pytest
import tiny_volumes

from data_io.datasets.kits19 import kits19
from data_io.prepare import augment, batches
from data_io.prepare.cache import prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import (
    Clipping,
    Data_IO,
    Normalization,
    Preprocessor,
    Resampling,
)
from data_io.prepare.preprocessing import Settings, augmentation, subfunctions
from data_io.prepare.resampling import SlabResampling
from pipelines import stages
from pipelines.reporting import pages
from pipelines.runs import run as runs
from pipelines.training import protocol
from pipelines.training.task import Task

PATCH = (8, 16, 16)
TINY = {"filters": 2, "depth": 1, "epochs": 2, "overlap": (4, 8, 8)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_volumes.write(tmp_path_factory.mktemp("raw") / "kits19" / "data")


@contextlib.contextmanager
def spied():
    """Gathers the epoch and content of each validation patch that is drawn."""
    drawn = set()
    draw = batches.Batches.__getitem__

    def spy(self, index):
        item = draw(self, index)
        if self.augmentation is None:
            drawn.add((self.epoch, item[0].tobytes()))
        return item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.Batches, "__getitem__", spy)
        yield drawn


def train(root, folder, work, **overrides):
    # The preset itself is tiny: runs with overrides are in no table.
    with pytest.MonkeyPatch.context() as patch:
        tiny = protocol.Protocol(PATCH, **TINY)
        patch.setitem(protocol.PRESETS, "reduced", lambda record: tiny)
        task = Task.make("kits19", "DSC++", preset="reduced", overrides=overrides)
    return stages.train(task, root, folder, work)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def done(root, work, tmp_path_factory):
    """A run that has passed all stages, where the tables look for one."""
    results = tmp_path_factory.mktemp("results")
    name = runs.folder_name("DSC++", 2, 0, keras.backend.backend())
    folder = results / "kits19" / "reduced" / "runs" / name
    with spied() as drawn:
        train(root, folder, work)
    stages.predict(folder, root, work)
    run = stages.evaluate(folder, root, work)
    run.drawn = drawn
    return run


@pytest.mark.backend
def test_from_raw_files_to_a_table(done, root):
    assert done.state == "evaluated"
    settings = done.record["settings"]
    assert (settings["overlap"], settings["join"]) == ([4, 8, 8], "miscnn")
    assert settings["fixed_validation"] is False
    with done.path("cases.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "image"]
    cases = [done.record["split"][part][0] for part in ("validation", "test")]
    expected = [(case, name) for case in cases for name in ("kidney", "kidney tumour")]
    assert [(row["case"], row["target"]) for row in rows] == expected
    for row in rows:
        label = kits19.references(root, row["case"])["observer1"]
        assert int(row["n_voxels"]) == label.size
        target = 1 if row["target"] == "kidney" else 2
        assert int(row["n_foreground"]) == np.count_nonzero(label == target)
        assert 0 < float(row["nll"]) < 3
    written = pages.Report(done.folder.parents[3]).write()
    assert any("kidney tumour" in path.read_text() for path in written)
    assert len(list(done.path("pictures").glob("*.png"))) == 1


def test_stored_probabilities_have_the_networks_grid(done, root):
    for path in done.path("probabilities").glob("*.npy"):
        found = np.load(path)
        slices = nibabel.load(root / path.stem / "imaging.nii.gz").shape[0]
        # 4 x 1.5 x 2 mm to 3.22 x 1.62 x 1.62 mm, rounded down.
        assert found.shape == (int(slices * 4 / 3.22), 20, 32, 3)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("augment", [True, False])
def test_patches_are_miscnns_from_the_raw_files(root, tmp_path, augment):
    settings = Settings.of(kits19.RECORD, PATCH)
    prepared = prepare(kits19, root, kits19.cases(root), settings, tmp_path, False)
    items = batches.Batches(
        prepared, prepared.cases, classes=3, seed=4, augment=augment
    )
    record, source = kits19.RECORD, RawInterface(kits19, root)
    as_stored = source.load_image

    def as_floats(case):
        """As MIScnn's own NIfTI interface gives it; integers would be rounded."""
        image, details = as_stored(case)
        return image.astype(np.float64), details

    source.load_image = as_floats
    direct = Preprocessor(
        Data_IO(source, str(root)),
        batch_size=1,
        subfunctions=[
            Resampling(record.spacing_mm),
            Clipping(*record.clip),
            Normalization(mode="z-score", smooth=1e-6),
        ],
        data_aug=augmentation(settings),
        analysis="patchwise-crop",
        patch_shape=PATCH,
    )
    for number, case in enumerate(prepared.cases):
        words = np.random.SeedSequence([4, 0, number]).generate_state(8)
        np.random.seed(words)  # noqa: NPY002 (batchgenerators draws from it)
        expected = direct.run([case], training=True, validation=not augment)[0]
        image, label = items[number]
        assert (image.shape, label.shape) == ((1, *PATCH, 1), (1, *PATCH, 3))
        np.testing.assert_allclose(image, expected[0], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(label, expected[1])


@pytest.mark.slow
def test_validation_patches_are_redrawn_or_fixed(done, root, work, tmp_path):
    assert [epoch for epoch, _ in sorted(done.drawn)] == [0, 1]
    assert len({content for _, content in done.drawn}) == 2
    with spied() as drawn:
        train(root, tmp_path / "run", work, fixed_validation=True)
    assert [epoch for epoch, _ in sorted(drawn)] == [0, 1]
    assert len({content for _, content in drawn}) == 1


@pytest.mark.slow
def test_training_uses_only_prepared_and_drawn_data(root, work, tmp_path, monkeypatch):
    called = Counter()

    def change(owner, name, to_what):
        original = getattr(owner, name)

        def changed(*args, **kwargs):
            called[f"{owner.__name__}.{name}"] += 1
            return to_what(original(*args, **kwargs))

        monkeypatch.setattr(owner, name, changed)

    change(Data_IO, "sample_loader", lambda sample: sample)
    change(SlabResampling, "preprocessing", lambda found: found)
    change(Normalization, "preprocessing", lambda found: found)
    # No class anywhere: the overlap loss of every class is that of nothing found.
    change(augment, "carry_out", lambda found: [0 * array for array in found])
    run = train(root, tmp_path / "run", tmp_path / "other work")
    with run.path("history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(losses, 1, atol=1e-3)
    # Five cases to prepare; three to train on and one to validate with, twice.
    assert called["Data_IO.sample_loader"] == 5
    assert called["SlabResampling.preprocessing"] == 5
    assert called["Normalization.preprocessing"] == 5
    assert called["data_io.prepare.augment.carry_out"] >= 8
    assert len(subfunctions(Settings.of(kits19.RECORD, PATCH))) == 3


def test_default_overlap_is_half_of_any_patch():
    task = Task.make(
        "kits19", "CE", preset="paper", overrides={"input_shape": [32, 64, 96]}
    )
    assert task.protocol.overlap == (16, 32, 48)
    given = {"input_shape": [32, 64, 96], "overlap": [0, 8, 95]}
    task = Task.make("kits19", "CE", preset="paper", overrides=given)
    assert task.protocol.overlap == (0, 8, 95)
