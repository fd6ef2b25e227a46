"""Figures with images: which case, which runs, what is said where something lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import test_tables
import tiny_volumes

from data_io import splits
from data_io.datasets import by_name, phantom
from data_io.errors import InputError
from data_io.files import hashing
from pipelines import cli, stages
from pipelines.prediction import evaluate
from pipelines.reporting import frame
from pipelines.reporting.figures import photographs
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant
from pipelines.runs import run as runs
from pipelines.training.task import Task

NAMES = ("figure1-heat-maps", "figure2-gamma", "figure5-overlays")
PLAIN, PLUS = Variant("DSC"), Variant("DSC++", 2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=1, validation=1, test=3, size=32)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    return tiny_volumes.write(tmp_path_factory.mktemp("raw") / "kits19" / "data")


def make_run(results, data, loss, gamma=None, seed=0, noise=0.1, dataset="phantom"):
    """A run with all but a network: the truth with noise in place of a softmax."""
    own = by_name(dataset).record(data) if dataset == "own" else None
    task = Task.make(dataset, loss, gamma, seed, preset="reduced", record=own)
    module, cases = task.module, splits.cases(by_name(dataset), data)
    hashes = hashing.case_hashes(module, data, cases, results / "work")
    record = {
        **task.identity(),
        "title": module.record(data).title,
        "simulated": module.record(data).simulated,
        "classes": list(module.record(data).classes),
        "preprocessing": {},
        "split": {
            "training": cases[:1],
            "validation": cases[1:2],
            "test": cases[2:],
        },
        "data_hash": hashing.data_hash(hashes),
    }
    run = runs.Run.create(task.folder(results), record)
    run.path("probabilities").mkdir()
    random = np.random.default_rng(seed)
    for case in cases[1:]:
        label = module.references(data, case)["observer1"]
        classes = len(module.record(data).classes)
        softmax = np.eye(classes, dtype=np.float32)[label]
        softmax += noise * random.random(softmax.shape, np.float32)
        softmax /= softmax.sum(axis=-1, keepdims=True)
        np.save(run.path("probabilities") / f"{case}.npy", softmax)
    run.update(state="predicted")
    evaluate.evaluate(run, data)
    return run


def locate(data: Path, work: Path):
    """What `dscpp figures` finds images with."""
    return lambda run: stages.located(run, data, work)


def open_group(results: Path, name: str = "phantom/reduced") -> Study:
    return frame.open_study(results / name)


@pytest.mark.slow
def test_every_figure_is_drawn_the_same_each_time(tmp_path, data):
    results = tmp_path / "results"
    for loss in ("CE", "DSC", "DSC++"):
        make_run(results, data, loss)
    paths, skipped = photographs.write_pictures(
        results, locate(data, tmp_path / "work")
    )
    folder = results / "phantom" / "reduced" / "pictures"
    stems = [folder / name for name in NAMES]
    stems.append(results / "pictures" / "figure3-losses-reduced")
    assert [*map(str, paths)] == [
        f"{s}.{kind}" for s in stems for kind in ("pdf", "png")
    ]
    assert skipped == ""
    first = {path: path.read_bytes() for path in paths}
    photographs.write_pictures(results, locate(data, tmp_path / "work"))
    assert {path: path.read_bytes() for path in paths} == first


def test_missing_probabilities_are_reported_once(tmp_path, data):
    results = tmp_path / "results"
    shutil.rmtree(make_run(results, data, "DSC").path("probabilities"))
    paths, skipped = photographs.write_pictures(
        results, locate(data, tmp_path / "work")
    )
    folder = results / "phantom" / "reduced"
    first, reason = skipped.splitlines()
    assert (paths, first) == ([], "Pictures skipped: 4")
    places = f"{folder / 'pictures'}, {results / 'pictures'}"
    assert reason.startswith(f"  4 of {places}: no probabilities here (git has none)")
    assert "dscpp predict --again --run RUN --data DIR" in reason
    assert not (folder / "pictures").exists()


@pytest.mark.slow
def test_data_option_applies_to_its_own_data_set(
    tmp_path, data, volumes, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    for loss in ("DSC", "DSC++"):
        make_run(results, volumes, loss, dataset="kits19")
        make_run(results, data, loss)
    given = ["figures", "--results", str(results), "--data"]
    assert cli.main([*given, str(data)]) == 0
    said = capsys.readouterr().out
    drawn = results / "phantom" / "reduced" / "pictures" / "figure1-heat-maps.png"
    assert str(drawn) in said
    (reason,) = (line for line in said.splitlines() if "KiTS19" in line)
    assert "expected the data set in data/kits19" in reason
    shutil.rmtree(results / "phantom")
    assert cli.main([*given, str(data)]) == 2
    assert f"--data {data}: expected the images" in capsys.readouterr().err


def test_missing_or_changed_images_are_skipped(tmp_path, data):
    results = tmp_path / "results"
    make_run(results, data, "DSC")
    paths, skipped = photographs.write_pictures(
        results, locate(tmp_path / "none", tmp_path / "work")
    )
    first, reason = skipped.splitlines()
    assert (paths, first) == ([], "Pictures skipped: 4")
    assert f"in {tmp_path / 'none'}" in reason
    others = phantom.generate(
        phantom.Settings(training=1, validation=1, test=3, size=32, seed=1),
        tmp_path / "others",
    )
    _, skipped = photographs.write_pictures(results, locate(others, tmp_path / "work"))
    assert "data changed" in skipped


def test_figures_without_their_losses_are_skipped(tmp_path, data):
    results = tmp_path / "results"
    make_run(results, data, "DSC++")
    drawn, skipped = photographs.write_pictures(
        results, locate(data, tmp_path / "work")
    )
    number, first, second = skipped.splitlines()
    assert number == "Pictures skipped: 2"
    assert first.startswith("  1 of ") and "DSC and DSC++ are needed" in first
    assert "two exponents" in second and "here are those of DSC++" in second
    assert [path.stem for path in drawn[::2]] == [
        "figure5-overlays",
        "figure3-losses-reduced",
    ]


def test_case_of_median_dice_by_hand(tmp_path):
    values = {"dice": (0.5, 0.9, 0.7, 0.6)}  # the lower of the middle two: 0.6
    made = test_tables.make_run(tmp_path, "DSC++", measures=values)
    study = frame.open_study(made.parents[1])
    assert photographs.median_case(study, runs.Run.open(made)) == "04"


def test_undefined_dice_is_no_median(tmp_path):
    nan = float("nan")
    values = {"dice": (nan, 0.9, nan, 0.6)}
    made = test_tables.make_run(tmp_path / "some", "DSC++", measures=values)
    study = frame.open_study(made.parents[1])
    assert photographs.median_case(study, runs.Run.open(made)) == "04"
    values = {"dice": (nan,) * 4}
    made = test_tables.make_run(tmp_path / "none", "DSC++", measures=values)
    study = frame.open_study(made.parents[1])
    assert photographs.median_case(study, runs.Run.open(made)) == "02"


def test_lowest_seed_with_probabilities_is_shown(tmp_path, data):
    results = tmp_path / "results"
    for seed in (0, 1, 2):
        run = make_run(results, data, "DSC++", seed=seed, noise=2.0)
        if seed == 0:
            shutil.rmtree(run.path("probabilities"))
    make_run(results, data, "CE", noise=2.0)
    study = open_group(results)
    found = photographs.example(study, locate(data, tmp_path / "work"))
    seeds = {variant.loss: run.record["seed"] for variant, run in found.runs.items()}
    assert seeds == {"CE": 0, "DSC++": 1}
    assert found.case == photographs.median_case(study, found.runs[PLUS])
    assert "3 test cases with DSC++ (seed 1)" in found.rule
    assert found.title("What", found.runs) == (
        f"What: phantom (SIMULATED), preset reduced, 2 seeds (0, 1), case {found.case}"
    )


def test_run_without_the_case_is_not_shown(tmp_path, data):
    results = tmp_path / "results"
    plain, plus = (make_run(results, data, loss) for loss in ("DSC", "DSC++"))
    case = photographs.median_case(open_group(results), plus)
    (plain.path("probabilities") / f"{case}.npy").unlink()
    found = photographs.example(open_group(results), locate(data, tmp_path / "work"))
    assert (found.case, list(found.runs)) == (case, [PLUS])
    (plus.path("probabilities") / f"{case}.npy").write_bytes(b"cut off")
    with pytest.raises(InputError, match=f"{case}.npy: expected the probabilities"):
        photographs.example(open_group(results), locate(data, tmp_path / "work"))
    (plus.path("probabilities") / f"{case}.npy").unlink()
    with pytest.raises(InputError, match="no probabilities here"):
        photographs.example(open_group(results), locate(data, tmp_path / "work"))


@pytest.mark.slow
def test_volumes_show_the_slice_with_most_tumour(tmp_path, volumes):
    results = tmp_path / "results"
    for loss in ("DSC", "DSC++"):
        make_run(results, volumes, loss, dataset="kits19")
    study = open_group(results, "kits19/reduced")
    found = photographs.example(study, locate(volumes, tmp_path / "work"))
    label = by_name("kits19").references(volumes, found.case)["observer1"]
    areas = (label == 2).sum(axis=(1, 2))
    assert areas.max() > 0
    assert (found.plane.axis, found.plane.index) == (0, areas.argmax())
    assert found.plane.aspect == 1.5 / 2
    np.testing.assert_array_equal(found.label, label[found.plane.index])
    # Softmax values of the tumour are those of the truth but for the noise.
    tumour = found.softmax[PLUS][..., 2]
    np.testing.assert_array_equal(tumour > 0.5, found.label == 2)
    paths, skipped = photographs.write_pictures(
        results, locate(volumes, tmp_path / "work")
    )
    assert "figure4-slice.png" in {path.name for path in paths}
    assert skipped == ""
