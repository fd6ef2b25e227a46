"""Corrupted test images: each kind against other code, the run's file, the table."""

import csv
import io
import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import filters
from written_runs import make_run as write_run
from written_runs import one, read

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.simulation import corruptions
from pipelines import cli, stages
from pipelines.measure import calibration, histograms
from pipelines.reporting import pages
from pipelines.runs import predictions
from pipelines.runs import run as runs
from pipelines.training.task import Task

TINY = {"input_shape": [32, 32], "filters": 2, "depth": 1, "epochs": 2}
RANDOM = np.random.default_rng(5)
IMAGE = RANDOM.integers(0, 256, (21, 34, 3), np.uint8)
WIDE = ("kind", "strength", "method", "case")


def test_noise_has_its_deviation_in_grey_levels():
    grey = np.full((200, 300, 1), 128, np.uint8)
    for strength, level in enumerate(corruptions.KINDS["noise"].levels, start=1):
        found = corruptions.corrupted(grey, "noise", strength, "a").astype(float) - 128
        assert found.std() == pytest.approx(level, rel=0.02)
        assert found.mean() == pytest.approx(0, abs=5 * level / 60_000**0.5)


def test_noise_is_of_the_case():
    def changed(case):
        return corruptions.corrupted(IMAGE, "noise", 3, case)

    np.testing.assert_array_equal(changed("a"), changed("a"))
    assert (changed("a") != changed("b")).mean() > 0.5


@pytest.mark.parametrize("strength", range(1, 6))
def test_blur_against_scikit_image(strength):
    sigma = corruptions.KINDS["blur"].levels[strength - 1]
    expected = filters.gaussian(
        IMAGE.astype(float), sigma, mode="reflect", channel_axis=-1
    )
    found = corruptions.corrupted(IMAGE, "blur", strength, "a")
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def test_contrast_and_brightness_by_hand():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, :, 0] = 100, 200
    image[0, :, 1] = 10, 11
    # A fifth of what is 50 on either side of 150 is left; 0.5 to 10.5 is 0.1.
    found = corruptions.corrupted(image, "contrast", 5, "a")
    assert found[0].T.tolist() == [[140, 160], [10, 11], [0, 0]]
    # One stop doubles; what would be 400 is saturated.
    found = corruptions.corrupted(image, "brightness", 4, "a")
    assert found[0].T.tolist() == [[200, 255], [20, 22], [0, 0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes(channels):
    image, file = IMAGE[..., :channels], io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=10)
    expected = np.asarray(Image.open(file)).reshape(image.shape)
    found = corruptions.corrupted(image, "jpeg", 4, "a")
    np.testing.assert_array_equal(found, expected)
    assert (found != image).any()


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.sampled_from(corruptions.STRENGTHS),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])),
    st.text(max_size=5),
)
def test_every_corruption_keeps_shape_and_type_and_is_repeated(which, shape, case):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = image.copy()
    first, second = (corruptions.corrupted(image, *which, case) for _ in range(2))
    assert (first.shape, first.dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    if which == (corruptions.NONE, 0):
        np.testing.assert_array_equal(first, image)


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_each_strength_changes_a_phantom_more_than_the_one_before(kind):
    chosen = phantom.vessels.kind
    image = chosen.draw(np.random.default_rng(1), 64).astype(np.uint8)
    changes = [
        np.abs(corruptions.corrupted(image, kind, n, "a") - image.astype(float)).mean()
        for n in range(1, 6)
    ]
    assert all(a < b for a, b in itertools.pairwise([0, *changes]))


@pytest.mark.parametrize(
    "image", [IMAGE.astype(np.float32), IMAGE[..., :2], IMAGE[..., 0]]
)
def test_other_images_are_refused(image):
    with pytest.raises(InputError, match="case a: expected an 8-bit image, grey or"):
        corruptions.corrupted(image, "noise", 1, "a")


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """A tiny trained run with its temperature, and its shift.csv."""
    folder = tmp_path_factory.mktemp("shift")
    numbers = phantom.Settings(training=2, validation=2, test=2, size=32, seed=2)
    data = phantom.generate(numbers, folder / "phantom")
    task = Task.make("phantom", "DSC", seed=0, preset="demo", overrides=TINY)
    run, work = folder / "runs" / "dsc-s0", folder / "work"
    stages.train(task, data, run, work)
    stages.predict(run, data, work)
    stages.evaluate(run, data, work)
    stages.scale(run, data, work)
    command = ["shift", "--run", str(run), "--data", str(data), "--work", str(work)]
    assert cli.main(command) == 0
    return SimpleNamespace(data=data, run=run, command=command)


def test_without_a_corruption_the_measures_are_the_runs_own(shifted):
    rows = read(shifted.run / "shift.csv")
    assert len(rows) == len({tuple(row[k] for k in WIDE) for row in rows})
    assert len(rows) == 26 * 2 * 2  # corruptions, methods, cases
    for method, name in {"": "dsc-s0", "temperature": "dsc-s0-temperature"}.items():
        folder = shifted.run.with_name(name)
        own, table = read(folder / "cases.csv"), histograms.load(
            folder / "histograms.npz"
        )  # fmt: skip
        found = [r for r in rows if (r["strength"], r["method"]) == ("0", method)]
        assert {row["kind"] for row in found} == {"none"}
        for row in found:
            case = {"case": row["case"], "split": "test", "reference": "observer1"}
            measured = one(own, **case, region="image")
            assert (row["nll"], row["dice"]) == (measured["nll"], measured["dice"])
            band = table.where(**case, region="band")
            bins = calibration.join(table.counts[band], table.confidence()[band])
            assert float(row["ace_band"]) == pytest.approx(
                calibration.ace(bins)[0], rel=1e-8
            )


def test_the_share_missed_is_that_at_the_threshold_chosen(shifted):
    run = runs.Run.open(shifted.run)
    chosen = stages.choose_threshold(shifted.run, "auto")
    rows = read(shifted.run / "shift.csv")
    for row in rows:
        if (row["strength"], row["method"]) == ("0", ""):
            assert float(row["threshold"]) == chosen
            p = predictions.probabilities(run, row["case"], (32, 32))[..., 1]
            y = phantom.vessels.references(shifted.data, row["case"])["observer1"] == 1
            missed = (y & (p < chosen)).sum() / y.sum()
            assert float(row["missed"]) == pytest.approx(missed, rel=1e-8)


def test_the_network_sees_the_corrupted_image(shifted, tmp_path):
    """The same as of a data set whose image files are corrupted."""
    data = tmp_path / "phantom"
    shutil.copytree(shifted.data, data)
    run = runs.Run.open(shifted.run)
    case = run.record["split"]["test"][0]
    path = phantom.vessels.roles(data, case)["image"]
    image = np.asarray(Image.open(path))
    Image.fromarray(corruptions.corrupted(image, "blur", 4, case)).save(path)
    from pipelines.prediction import new_images, shift

    trained = new_images.open_model(shifted.run)
    found = shift._predicted(trained, phantom.vessels, shifted.data, case, "blur", 4)
    expected = shift._predicted(trained, phantom.vessels, data, case, "none", 0)
    np.testing.assert_array_equal(found, expected)
    kept = predictions.probabilities(run, case, (32, 32))
    assert np.abs(found - kept).max() > 1e-3


def test_given_again_nothing_is_measured(shifted, monkeypatch, capsys):
    before = (shifted.run / "shift.csv").stat().st_mtime_ns
    assert cli.main(shifted.command) == 0
    assert (shifted.run / "shift.csv").stat().st_mtime_ns == before
    assert "is not looked at" in capsys.readouterr().out


def test_other_probabilities_take_the_file_away(shifted, tmp_path):
    shutil.copytree(shifted.run, tmp_path / "dsc-s0")
    predictions.discard_derived(runs.Run.open(tmp_path / "dsc-s0"))
    assert not (tmp_path / "dsc-s0" / "shift.csv").exists()


def test_a_run_without_a_network_is_refused(shifted, capsys):
    scaled = shifted.run.with_name("dsc-s0-temperature")
    assert cli.main(["shift", "--run", str(scaled)]) == 2
    assert "found one after temperature" in capsys.readouterr().err


def write_shift(folder, nll):
    """Two corruptions of the four cases of a hand-made run."""
    rows = [
        {"kind": kind, "strength": n, "level": "", "method": "", "target": "vessel"}
        | {"case": case, "threshold": 0.5, "nll": value + n, "ace_band": 0.1}
        | {"dice": 0.5, "missed": ""}
        for kind, n in (("none", 0), ("blur", 1))
        for case, value in zip(("01", "02", "03", "04"), nll, strict=True)
    ]
    with (folder / "shift.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    run = runs.Run.open(folder)
    run.update(files=["shift.csv"])


def test_the_table_averages_cases_and_seeds(tmp_path):
    group = tmp_path / "drive" / "paper"
    write_shift(write_run(tmp_path), (0.1, 0.2, 0.3, 0.4))
    write_shift(write_run(tmp_path, seed=1), (0.3, 0.4, 0.5, 0.6))
    write_run(tmp_path, seed=2)  # has none
    write_run(tmp_path, "CE")
    pages.Report(tmp_path).write()
    rows = read(group / "shift.csv")
    assert {row["loss"] for row in rows} == {"DSC"}
    found = one(rows, kind="blur", strength="1", measure="nll")
    assert (float(found["mean"]), found["seeds"], found["n"]) == (1.35, "2", "4")
    # Over cases sqrt(.05 / 4) / 2 (n in the denominator); over seeds .2 / sqrt 2 / 2.
    error = np.hypot(np.std([0.1, 0.2, 0.3, 0.4]) / 2, 0.1)
    assert float(found["standard_error"]) == pytest.approx(error, rel=0.05)
    undefined = one(rows, kind="none", strength="0", measure="missed")
    assert (undefined["mean"], undefined["n_undefined"]) == ("", "8")


def test_a_table_without_such_runs_is_not_written(tmp_path):
    group = tmp_path / "drive" / "paper"
    run = write_run(tmp_path)
    write_shift(run, (0.1, 0.2, 0.3, 0.4))
    pages.Report(tmp_path).write()
    assert (group / "shift.csv").is_file()
    (run / "shift.csv").unlink()
    pages.Report(tmp_path).write()
    assert not (group / "shift.csv").exists()


def test_a_file_that_was_edited_is_refused(tmp_path):
    run = write_run(tmp_path)
    write_shift(run, (0.1, 0.2, 0.3, 0.4))
    (run / "shift.csv").write_text("kind\n")
    with pytest.raises(InputError, match="dscpp shift --again --run"):
        pages.Report(tmp_path).write()
