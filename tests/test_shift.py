"""Corrupted test images: each kind against other code, the run's file, the table."""

import io
import itertools
import shutil
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import written_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import filters
from written_runs import CASES, one, read
from written_runs import make_run as write_run

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.simulation import corruptions
from pipelines import cli, stages
from pipelines.environment import commits
from pipelines.measure import calibration, histograms
from pipelines.prediction.shift import COLUMNS
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


def test_gamma_and_brightness_by_hand():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, :, 0] = 51, 255
    # A fifth of white: 255 / 25 = 10.2, and 255 / 125 = 2.04.
    assert corruptions.corrupted(image, "gamma", 3, "a")[0, :, 0].tolist() == [10, 255]
    assert corruptions.corrupted(image, "gamma", 5, "a")[0, :, 0].tolist() == [2, 255]
    image[0, :, 0] = 100, 200
    image[0, :, 1] = 10, 11
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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_z_score_takes_no_gamma_away(channels):
    def scored(values):
        return (values - values.mean()) / values.std()

    grey = phantom.vessels.kind.draw(np.random.default_rng(1), 64).astype(np.uint8)
    image = np.repeat(grey[..., 1:2], channels, axis=-1)
    changes = [
        np.abs(scored(corruptions.corrupted(image, "gamma", n, "a")) - scored(image))
        for n in range(1, 6)
    ]
    means = [change.mean() for change in changes]
    assert all(a < b for a, b in itertools.pairwise([0.02, *means]))


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
    found = shift._predicted(
        trained, phantom.vessels, shifted.data, case, "blur", 4, tmp_path
    )
    expected = shift._predicted(
        trained, phantom.vessels, data, case, "none", 0, tmp_path
    )
    np.testing.assert_array_equal(found, expected)
    kept = predictions.probabilities(run, case, (32, 32))
    assert np.abs(found - kept).max() > 1e-3


def test_corrupted_images_lie_in_the_work_folder(shifted, tmp_path, monkeypatch):
    """A killed process leaves them there, not where nothing deletes them."""
    from pipelines.prediction import new_images, shift

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    trained = new_images.open_model(shifted.run)
    case = runs.Run.open(shifted.run).record["split"]["test"][0]
    part = trained, phantom.vessels, shifted.data, case, "blur", 4
    shift._predicted(*part, tmp_path / "work")
    assert list((tmp_path / "work" / "cache").iterdir()) == []


@pytest.fixture
def copied(shifted, tmp_path, monkeypatch):
    """A copy of the run; `measured` counts what is measured of it, which it is not."""
    from pipelines.prediction import shift

    for name in ("dsc-s0", "dsc-s0-temperature"):
        shutil.copytree(shifted.run.with_name(name), tmp_path / name)
    measured = []
    monkeypatch.setattr(shift, "measure", lambda *of: measured.append(of))
    run, twin = (runs.Run.open(tmp_path / n) for n in ("dsc-s0", "dsc-s0-temperature"))

    def again(**options):
        stages.shift(run.folder, shifted.data, tmp_path / "work", **options)
        return len(measured)

    return SimpleNamespace(run=run, twin=twin, again=again)


def edited(run, twin):
    path = run.path("shift.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def killed_before_the_record(run, twin):
    del run.record["files"]["shift.csv"]
    run.update()


def another_temperature(run, twin):
    twin.update(posthoc={"temperature": 7.0})


def no_temperature_any_more(run, twin):
    shutil.rmtree(twin.folder)


def another_threshold(run, twin):
    table = histograms.load(run.path("histograms.npz"))
    counts = table.counts.copy()
    counts[table.split == "validation"] = counts[table.split == "validation"][:, ::-1]
    histograms.save(run.path("histograms.npz"), replace(table, counts=counts))
    run.update(files=["histograms.npz"])


@pytest.mark.parametrize(
    "change",
    [
        edited,
        killed_before_the_record,
        another_temperature,
        no_temperature_any_more,
        another_threshold,
    ],
)
def test_what_is_not_of_today_is_measured_anew(copied, change):
    assert copied.again() == 0
    change(copied.run, copied.twin)
    assert copied.again() == 1


def test_code_that_was_changed_is_noted(copied, monkeypatch):
    changed = "d" * 40 + "+"
    monkeypatch.setattr(commits, "commit", lambda: changed)
    copied.again(again=True)
    (*_, last) = runs.Run.open(copied.run.folder).record["environment_changes"]
    assert (last["stage"], last["commit"]) == ("shift", changed)


def test_a_run_of_all_folds_is_told_to_give_one(copied):
    copied.run.update(folds=5)
    with pytest.raises(InputError, match="give a run of one fold"):
        copied.again()


def test_channels_of_several_files_are_no_photograph(shifted, tmp_path):
    from pipelines.prediction import shift

    run = runs.Run.open(shifted.run)
    record = run.record | {"preprocessing": {"modalities": ["t1", "t2", "flair"]}}
    run = runs.Run(tmp_path, record)
    with pytest.raises(InputError, match="found one of t1 and t2 and flair"):
        shift.measure(run, shifted.data, tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_first(
    shifted, tmp_path, monkeypatch
):
    from pipelines.prediction import new_images, shift

    def refuse(path, value):
        raise InputError(f"{path}: expected a place that can be written")

    monkeypatch.setattr(runs, "write_json", refuse)
    monkeypatch.setattr(new_images, "open_model", None)
    with pytest.raises(InputError, match="expected a place that can be written"):
        shift.measure(runs.Run.open(shifted.run), shifted.data, tmp_path)


def test_without_a_validation_case_no_threshold_is_chosen(
    shifted, tmp_path, monkeypatch, capsys
):
    from pipelines.prediction import shift

    shutil.copytree(shifted.run, tmp_path / "dsc-s0")
    run = runs.Run.open(tmp_path / "dsc-s0")
    path = run.path("histograms.npz")
    histograms.save(path, histograms.load(path).part("test"))
    run.update(files=["histograms.npz"])
    monkeypatch.setattr(corruptions, "STRENGTHS", ((corruptions.NONE, 0),))
    shift.measure(run, shifted.data, tmp_path / "work")
    rows = read(run.path("shift.csv"))
    assert [(row["threshold"], row["missed"]) for row in rows] == [("", "")] * 2
    assert all(float(row["nll"]) > 0 for row in rows)
    assert "no validation case with foreground" in capsys.readouterr().out
    assert shift.is_done(run)


def test_given_again_nothing_is_measured(shifted, monkeypatch, capsys):
    before = (shifted.run / "shift.csv").stat().st_mtime_ns
    assert cli.main(shifted.command) == 0
    assert (shifted.run / "shift.csv").stat().st_mtime_ns == before
    assert "is not looked at" in capsys.readouterr().out


def test_a_stopped_measurement_goes_on(shifted, tmp_path, monkeypatch):
    """The first case is not measured again, and the file is the undisturbed one."""
    from pipelines.prediction import shift

    run = runs.Run.open(shutil.copytree(shifted.run, tmp_path / "dsc-s0"))
    shutil.copytree(
        shifted.run.with_name("dsc-s0-temperature"), tmp_path / "dsc-s0-temperature"
    )
    first, second = run.record["split"]["test"]
    measure, cases = shift._of_case, []

    def counted(trained, module, root, case, *more):
        if case == second and not cases.count(second):
            cases.append(case)
            raise KeyboardInterrupt
        cases.append(case)
        return measure(trained, module, root, case, *more)

    monkeypatch.setattr(shift, "_of_case", counted)
    with pytest.raises(KeyboardInterrupt):
        shift.measure(run, shifted.data, tmp_path / "work")
    shift.measure(run, shifted.data, tmp_path / "work")
    assert cases == [first, second, second]
    assert read(run.path("shift.csv")) == read(shifted.run / "shift.csv")
    assert not list((tmp_path / "work" / "cache" / "shift").iterdir())


def test_other_probabilities_take_the_file_away(shifted, tmp_path):
    shutil.copytree(shifted.run, tmp_path / "dsc-s0")
    predictions.discard_derived(runs.Run.open(tmp_path / "dsc-s0"))
    assert not (tmp_path / "dsc-s0" / "shift.csv").exists()


def test_predicting_again_takes_the_file_away_if_something_changed(
    shifted, tmp_path, monkeypatch
):
    from pipelines.training import predict

    folder = tmp_path / "dsc-s0"
    shutil.copytree(shifted.run, folder)
    stages.predict(folder, shifted.data, tmp_path / "work", again=True)
    assert (folder / "shift.csv").is_file()
    half = np.full((32, 32, 2), 0.5, np.float32)
    monkeypatch.setattr(predict, "probabilities", lambda *_: half)
    stages.predict(folder, shifted.data, tmp_path / "work", again=True)
    assert not (folder / "shift.csv").exists()


def test_a_run_without_a_network_is_refused(shifted, capsys):
    scaled = shifted.run.with_name("dsc-s0-temperature")
    assert cli.main(["shift", "--run", str(scaled)]) == 2
    assert "found one after temperature" in capsys.readouterr().err


def write_shift(folder, nll, methods=("",), targets=("vessel",), cases=CASES):
    """Two corruptions of the cases of a hand-made run; the second class has 1 more."""
    keys = itertools.product(("none", "blur"), methods, enumerate(targets))
    rows = [
        {"kind": kind, "strength": int(kind == "blur"), "method": method}
        | {"target": target, "case": case, "threshold": 0.5, "ace_band": 0.1}
        | {"dice": 0.5, "nll": value + (kind == "blur") + n}
        for kind, method, (n, target) in keys
        for case, value in zip(cases, nll, strict=True)
    ]
    runs.write_csv(folder / "shift.csv", COLUMNS, rows)
    runs.Run.open(folder).update(files=["shift.csv"])


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


def test_names_of_cases_and_classes_are_text(tmp_path, monkeypatch):
    cases, classes = ("-a", "+b", "NA", "nan"), ("1", "2")
    monkeypatch.setattr(written_runs, "CASES", cases)
    run = write_run(tmp_path, targets=classes)
    write_shift(run, (0.1, 0.2, 0.3, 0.4), targets=classes, cases=cases)
    pages.Report(tmp_path).write()
    rows = read(tmp_path / "drive" / "paper" / "shift.csv")
    for target, expected in {"1": "0.25", "2": "1.25"}.items():
        found = one(rows, kind="none", measure="nll", target=target)
        assert (found["mean"], found["n"]) == (expected, "4")


def test_a_temperature_counts_the_trainings_that_have_one(tmp_path):
    nll = (0.1, 0.2, 0.3, 0.4)
    write_shift(write_run(tmp_path), nll)
    write_shift(write_run(tmp_path, seed=1), nll, methods=("", "temperature"))
    pages.Report(tmp_path).write()
    rows = read(tmp_path / "drive" / "paper" / "shift.csv")
    wanted = {"kind": "blur", "measure": "nll"}
    for method, seeds in {"": "2", "temperature": "1"}.items():
        found = one(rows, method=method, **wanted)
        assert (found["seeds"], found["mean"], found["n_undefined"]) == (
            (seeds, "1.25", "0")
        )


@pytest.mark.parametrize("lacks", ["case", "class"])
def test_a_file_that_lacks_a_case_or_class_is_refused(tmp_path, lacks):
    run = write_run(tmp_path, targets=("1", "2"))
    cases, targets = (CASES[:3], ("1", "2")) if lacks == "case" else (CASES, ("1",))
    write_shift(run, (0.1, 0.2, 0.3, 0.4)[: len(cases)], ("",), targets, cases)
    with pytest.raises(InputError, match="each of the 4 test cases once"):
        pages.Report(tmp_path).write()


def test_means_are_printed_for_each_class(tmp_path, monkeypatch, capsys):
    from pipelines.prediction import shift

    run = write_run(tmp_path, targets=("1", "2"))
    write_shift(run, (0.1, 0.2, 0.3, 0.4), targets=("1", "2"))
    monkeypatch.setattr(shift, "is_done", lambda run: True)
    monkeypatch.setattr(stages, "shift", lambda folder, *_: runs.Run.open(folder))
    assert cli.main(["shift", "--run", str(run)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["no", "method", "1", "none", "0.250"] in lines
    assert ["2", "none", "1.250"] in lines
    assert ["blur", "2.250"] in lines
