"""Temperature scaling: the fit by hand, the run it writes, the table over runs."""

import csv
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from written_runs import DSC_NLL, make_run, one, read

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.files import schema
from pipelines import cli, commands, stages
from pipelines.posthoc import scaling
from pipelines.prediction import new_images
from pipelines.reporting import frame, pages
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.training.task import Task

TINY = {"input_shape": [32, 32], "filters": 2, "depth": 1, "epochs": 1}


def test_scaling_divides_the_logits():
    logits = np.random.default_rng(0).normal(scale=5, size=(7, 6, 3))
    found = scaling.scale(softmax(logits, axis=-1), 2.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits / 2.5, axis=-1), atol=1e-6)


def test_a_probability_of_zero_stays_finite():
    found = scaling.scale(np.array([[0.0, 1.0]], np.float32), 4.0)
    # The smallest normal float32 is 2^-126; its fourth root 2^-31.5.
    assert found[0, 0] == pytest.approx(2**-31.5, rel=1e-4)
    assert found[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_above_0(wrong):
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        scaling.scale(np.full((2, 2), 0.5), wrong)


def run_of(tmp_path, monkeypatch, label, p):
    """A run of one validation image with these labels and probabilities."""
    split = {"validation": ["a"], "test": []}
    record = {"dataset": "fake", "state": "predicted", "split": split}
    run = runs.Run(tmp_path / "run", record)
    run.path("probabilities").mkdir(parents=True)
    stacked = np.stack([1 - p, p], axis=-1).astype(np.float32)
    np.save(run.path("probabilities") / "a.npy", stacked)
    module = SimpleNamespace(
        references=lambda root, case: {"observer1": label},
        record=lambda root: SimpleNamespace(is_3d=False),
    )
    monkeypatch.setattr(scaling.datasets, "by_name", lambda name: module)
    return run


def test_the_fit_by_hand(tmp_path, monkeypatch):
    # It says 0.9 where 3 of 4 are true and 0.1 where 1 of 4 is: the best is 0.75 and
    # 0.25, so T = logit(0.9) / logit(0.75) = log 9 / log 3 = 2.
    p = np.array([[0.9] * 4, [0.1] * 4])
    label = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], np.uint8)
    found = scaling.fit(run_of(tmp_path, monkeypatch, label, p), tmp_path)
    assert found.temperature == pytest.approx(2, abs=2e-3)
    before = -(3 * math.log(0.9) + math.log(0.1)) / 4
    after = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert found.nll_before == pytest.approx(before, rel=1e-5)
    assert found.nll_after == pytest.approx(after, rel=1e-5)
    assert (found.cases, found.n_voxels) == (1, 8)


def test_a_temperature_at_the_bounds_is_refused(tmp_path, monkeypatch):
    # Right as often as wrong: the best is 0.5 throughout, at a T without end.
    p, label = np.array([[0.9, 0.9]]), np.array([[1, 0]], np.uint8)
    run = run_of(tmp_path, monkeypatch, label, p)
    with pytest.raises(scaling.AtBound, match=r"found 20.* higher ones"):
        scaling.fit(run, tmp_path)
    # Every voxel right: the lower T, the lower the NLL, until it is 0.
    for sure in (0.55, 0.9):
        p, label = np.array([[sure, 1 - sure]]), np.array([[1, 0]], np.uint8)
        run = run_of(tmp_path / str(sure), monkeypatch, label, p)
        with pytest.raises(scaling.AtBound, match=r"found 0.05: lower ones"):
            scaling.fit(run, tmp_path)


def test_where_all_temperatures_are_equal_it_is_1(tmp_path, monkeypatch):
    run = run_of(
        tmp_path, monkeypatch, np.array([[1, 0, 0]], np.uint8), np.full((1, 3), 0.5)
    )
    found = scaling.fit(run, tmp_path)
    assert found.temperature == 1
    assert found.nll_before == found.nll_after == pytest.approx(math.log(2), rel=1e-5)


def test_a_temperature_at_the_bounds_fails_no_run(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise scaling.AtBound("at the bounds")

    monkeypatch.setattr(stages, "scale", refuse)
    run = runs.Run.create(tmp_path / "dsc-s0", {"files": {runs.MODEL: "of now"}})
    run.update(state="evaluated")
    run.path("probabilities").mkdir()
    for name in runs.MEASURES:
        run.path(name).touch()
    assert not stages.is_complete(run)
    noted = stages._temperature_or_note(run, None, tmp_path)
    assert noted.folder == run.folder
    assert "no scaled run. at the bounds" in capsys.readouterr().err
    found = runs.Run.open(run.folder)
    assert stages.is_complete(found)
    # Of `dscpp run`, which ended in a KeyError.
    said = f"{run.folder}: evaluated, no temperature"
    assert commands._STAGE_MESSAGES["temperature"](noted) == said
    assert commands._STAGE_MESSAGES["temperature"](found) == said


def test_a_scaled_run_whose_measures_are_gone_is_not_done(tmp_path):
    run = runs.Run.create(tmp_path / "dsc-s0", {"files": {runs.MODEL: "of now"}})
    posthoc = {"run": "dsc-s0", "model": "of now"}
    scaled = runs.Run.create(tmp_path / "dsc-s0-temperature", {"posthoc": posthoc})
    scaled.update(state="evaluated")
    assert not stages.is_scaled(run.folder, "temperature")
    for name in runs.MEASURES:
        scaled.path(name).touch()
    assert stages.is_scaled(run.folder, "temperature")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("temperature")
    settings = phantom.Settings(training=2, validation=2, test=2, size=32, seed=2)
    data = phantom.generate(settings, folder / "phantom")
    task = Task.make("phantom", "DSC", seed=0, preset="demo", overrides=TINY)
    run, work = folder / "runs" / "dsc-s0", folder / "work"
    stages.train(task, data, run, work)
    stages.predict(run, data, work)
    stages.evaluate(run, data, work)
    return SimpleNamespace(data=data, run=run, work=work)


def test_the_scaled_run_is_a_run_beside_the_run(trained, capsys, monkeypatch):
    command = ["temperature", "--run", str(trained.run), "--work", str(trained.work)]
    assert cli.main([*command, "--data", str(trained.data)]) == 0
    folder = trained.run.with_name("dsc-s0-temperature")
    assert str(folder) in capsys.readouterr().out
    new, old = runs.Run.open(folder), runs.Run.open(trained.run)
    assert (new.state, new.record["method"]) == ("evaluated", "temperature")
    fitted = new.record["posthoc"]
    assert fitted["run"] == "dsc-s0"
    assert fitted["nll_after"] < fitted["nll_before"]
    for key in ("loss", "seed", "split", "data_hash", "settings", "commit"):
        assert new.record[key] == old.record[key], key
    assert set(new.record["files"]) == {"cases.csv", "histograms.npz"}
    assert list(folder.rglob("*.npy")) == []  # derived, not kept twice
    case = old.record["split"]["test"][0]
    before = predictions.probabilities(old, case, (32, 32))
    after = predictions.probabilities(new, case, (32, 32))
    logit = np.log(before[..., 1].astype(float)) - np.log(before[..., 0].astype(float))
    expected = 1 / (1 + np.exp(-logit / fitted["temperature"]))
    np.testing.assert_allclose(after[..., 1], expected, atol=1e-5)
    rows = list(csv.DictReader(new.path("cases.csv").open()))
    assert {row["method"] for row in rows} == {"temperature"}
    validation = [
        float(row["nll_categorical"])
        for row in rows
        if (row["split"], row["region"]) == ("validation", "image")
    ]
    # Two images of one size: the mean over voxels is that over images.
    assert np.mean(validation) == pytest.approx(fitted["nll_after"], rel=1e-4)

    # Given again, nothing is fitted and no data are needed.
    monkeypatch.setattr(scaling, "fit", None)
    assert cli.main(command) == 0


def test_other_weights_are_fitted_anew(trained):
    stages.scale(trained.run, trained.data, trained.work)
    new = runs.Run.open(trained.run.with_name("dsc-s0-temperature"))
    origin = new.record["posthoc"]
    new.update(posthoc={**origin, "model": "of other weights"})
    again = stages.scale(trained.run, trained.data, trained.work)
    assert again.record["posthoc"]["model"] == origin["model"]


def test_interrupted_scaling_is_made_again(trained, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            stages.scale(trained.run, trained.data, trained.work, again=True)
    folder = trained.run.with_name("dsc-s0-temperature")
    assert runs.Run.open(folder).state == "predicted"
    assert stages.scale(trained.run, trained.data, trained.work).state == ("evaluated")


def test_other_probabilities_than_those_fitted_are_refused(trained, tmp_path):
    stages.scale(trained.run, trained.data, trained.work)
    for name in ("dsc-s0", "dsc-s0-temperature"):
        shutil.copytree(trained.run.with_name(name), tmp_path / name)
    run, scaled = (
        runs.Run.open(tmp_path / n) for n in ("dsc-s0", "dsc-s0-temperature")
    )
    case = run.record["split"]["test"][0]
    np.save(predictions.path(run, case), np.full((32, 32, 2), 0.5, np.float32))
    names = [path.name for path in run.path("probabilities").glob("*.npy")]
    written.seal(run.path("probabilities"), names)
    run.update(files=[predictions.LIST])
    again = f"dscpp temperature --again --run {run.folder}"
    with pytest.raises(InputError, match=f"was made from, found others; run `{again}`"):
        predictions.probabilities(scaled, case, (32, 32))
    stages.scale(run.folder, trained.data, trained.work, again=True)
    found = predictions.probabilities(runs.Run.open(scaled.folder), case, (32, 32))
    np.testing.assert_array_equal(found, np.float32(0.5))
    shutil.rmtree(run.folder)
    with pytest.raises(InputError, match="dsc-s0: expected a run folder"):
        predictions.probabilities(runs.Run.open(scaled.folder), case, (32, 32))


def test_a_scaled_run_is_not_scaled_again(trained):
    made = stages.scale(trained.run, trained.data, trained.work)
    with pytest.raises(InputError, match="expected a run as it was trained"):
        stages.scale(made.folder, trained.data, trained.work)


def test_a_scaled_run_has_the_network_and_notes_of_its_run(trained):
    made = stages.scale(trained.run, trained.data, trained.work)
    found = new_images.open_model(made.folder)
    assert found.run.record["posthoc"] == made.record["posthoc"]
    assert made.record["posthoc"]["temperature"] != 1
    weights = new_images.open_model(trained.run).model.get_weights()
    for own, other in zip(found.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(own, other)
    assert made.seen() == runs.Run.open(trained.run).seen() is not None


def test_a_temperature_is_not_used_on_other_weights(trained, tmp_path):
    made = stages.scale(trained.run, trained.data, trained.work)
    folder = tmp_path / "dsc-s0-temperature"
    shutil.copytree(made.folder, folder)
    with pytest.raises(InputError, match=r"dsc-s0: expected a run folder"):
        scaling.trained(runs.Run.open(folder))
    shutil.copytree(trained.run, tmp_path / "dsc-s0")
    (tmp_path / "dsc-s0" / runs.MODEL).write_bytes(b"others")
    runs.Run.open(tmp_path / "dsc-s0").update(files=[runs.MODEL])
    with pytest.raises(InputError, match="dscpp temperature --again --run"):
        scaling.trained(runs.Run.open(folder))


def test_run_without_probabilities_names_the_command(trained, tmp_path):
    record = json.loads((trained.run / "run.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"dscpp predict --again"):
        stages.scale(tmp_path / "run", trained.data, trained.work)
    assert not (tmp_path / "run-temperature" / "run.json").exists()


def scaled(results, loss, nll, found, **more):
    make_run(results, loss, nll, method="temperature", posthoc={"temperature": found},
             **more)  # fmt: skip


def test_temperature_table_by_hand(tmp_path):
    results = tmp_path / "results"
    for seed, shift in enumerate((0.0, 0.2)):
        nll = np.array([0.4, 0.5, 0.6, 0.9]) + shift
        make_run(results, "DSC", nll, seed=seed)
        scaled(results, "DSC", nll - 0.3, 3.0 + seed, seed=seed)
    make_run(results, "DSC", (9, 9, 9, 9), seed=2)  # its scaled run is not there
    make_run(results, "DSC++", (0.1, 0.1, 0.2, 0.2), gamma=2.0)
    pages.Report(results).write()
    rows = read(results / "drive" / "paper" / "temperature.csv")
    assert [row["metric"] for row in rows] == ["nll_published", "nll", "brier", "dice"]
    row = one(rows, loss="DSC", metric="nll_published")
    # Means 0.6 and 0.8 before, each 0.3 less after.
    assert (row["before"], row["after"], row["seeds"], row["n"]) == (
        "0.7", "0.4", "2", "4",
    )  # fmt: skip
    assert float(row["difference"]) == pytest.approx(-0.3)
    assert [row[f"temperature{end}"] for end in ("", "_low", "_high")] == [
        "3.5", "3", "4",
    ]  # fmt: skip
    # Seed 0 alone has both: 0.1, 0.2, 0.3, 0.6 less 0.1, 0.1, 0.2, 0.2.
    assert float(row["to_dscpp"]) == pytest.approx(0.6 / 4)


def test_markdown_table_has_a_line_for_each_loss(tmp_path):
    results, readme = tmp_path / "results", tmp_path / "README.md"
    measures = {"nll": (0.4, 0.4, 0.6, 0.6), "brier": (0.1, 0.1, 0.1, 0.3)}
    make_run(results, "DSC", measures=measures)
    less = {name: np.array(values) / 2 for name, values in measures.items()}
    scaled(results, "DSC", DSC_NLL, 2.25, measures=less)
    better = {"nll": (0.1, 0.1, 0.2, 0.2)}
    make_run(results, "DSC++", measures=better, gamma=2.0)
    marker = "drive-paper-temperature"
    readme.write_text(f"<!-- {marker}:begin -->\n<!-- {marker}:end -->\n")
    assert pages.Report(results).update(readme) == [marker]
    (line,) = [line for line in readme.read_text().splitlines() if "DSC" in line[:6]]
    begin = "| DSC | 1 | 2.25 | 0.500 | 0.250 | 0.150 | 0.075 | +0.100 ("
    assert line.startswith(begin)


def test_a_study_without_scaled_runs_says_so(tmp_path):
    make_run(tmp_path / "results")
    page = pages.Page(frame.open_study(tmp_path / "results" / "drive" / "paper"))
    assert page.topic("temperature") == "*No run was scaled yet.*"


def test_no_scaled_run_no_table(tmp_path):
    results = tmp_path / "results"
    make_run(results)
    stale = results / "drive" / "paper" / "temperature.csv"
    stale.write_text("loss,target\nof runs that are gone,\n")
    pages.Report(results).write()
    assert not stale.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no set.json"),
        ('{"files": "x"}', "a set.json that cannot be used .files: expected"),
        ('{"sha256": "of others"}', "a set.json that cannot be used .*changed by"),
        ("{", "a set.json that cannot be used .*JSON"),
    ],
)
def test_damaged_set_description_is_named(tmp_path, content, reason):
    """It said that there was no set.json."""
    new_images._require_same_set(tmp_path / "none", "a hash")
    if content:
        (tmp_path / "set.json").write_text(content)
    with pytest.raises(InputError, match=f"measures of a set, found {reason}"):
        new_images._require_same_set(tmp_path, "a hash")
    sealed = schema.sealed({"data_hash": "a hash"})
    (tmp_path / "set.json").write_text(json.dumps(sealed))
    new_images._require_same_set(tmp_path, "a hash")
    with pytest.raises(InputError, match=r"images that the set .* was measured"):
        new_images._require_same_set(tmp_path, "another")
