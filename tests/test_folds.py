"""Cross-validation: where the runs of folds lie, and what is pooled of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from written_runs import CASES, DSC_NLL, make_run, one, read

from data_io.errors import InputError
from pipelines import cli
from pipelines.measure import histograms
from pipelines.reporting import frame, pages
from pipelines.runs import folds
from pipelines.runs import run as runs
from pipelines.training.task import Task
from pipelines.workflow import plan

SECOND = tuple(f"1{case}" for case in CASES)  # the test cases of the second fold
GROUP = "reduced-2folds"


def make_fold(results: Path, number: int, cases, nll, **more) -> Path:
    """A fold as it was evaluated: its cases are renamed from those of `make_run`."""
    split = {"training": [], "validation": [*CASES, *SECOND], "test": list(cases)}
    split["validation"] = [c for c in split["validation"] if c not in cases]
    shared = {"dataset": "own", "title": "own data", "preset": "reduced"}
    folder = make_run(
        results, "DSC", nll, group=f"{GROUP}-fold{number}", split=split,
        fold=[number, 2], times={"train_s": 10.5, "epochs": 3}, **shared, **more,
    )  # fmt: skip
    names = dict(zip(CASES, cases, strict=True))
    path = folder / "cases.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.assign(case=rows["case"].map(names)).to_csv(path, index=False)
    path = folder / "histograms.npz"
    found = histograms.load(path)

    text = np.array([names[str(case)] for case in histograms.load(path).case])
    histograms.save(path, histograms.Histograms(**{**vars(found), "case": text}))
    return folder


@pytest.fixture
def two(tmp_path) -> list[Path]:
    results = tmp_path / "results"
    return [
        make_fold(results, 1, CASES, DSC_NLL),
        make_fold(results, 2, SECOND, (0.5, 0.6, 0.7, 0.8)),
    ]


def test_the_pooled_run_has_every_case_once_and_a_table(two, tmp_path):
    results = tmp_path / "results"
    output = results / "own" / GROUP / "runs" / two[0].name
    run = folds.pool(two, output)
    assert run.state == "evaluated" and run.record["folds"] == 2
    assert run.record["split"]["test"] == sorted((*CASES, *SECOND))
    assert run.record["times"] == {"train_s": 21.0, "epochs": 6}
    study = frame.open_study(output.parents[1])
    (variant,) = study.runs
    found = study.measures(variant, "vessel", "nll_published")
    # Sorted cases: 01 to 04, then 101 to 104.
    np.testing.assert_allclose(found, [[*DSC_NLL, 0.5, 0.6, 0.7, 0.8]])
    assert study.counts(variant, "vessel").sum() == 10 * 8
    # The single folds are in no table.
    assert [page.study.folder.name for page in pages.Report(results).pages] == [GROUP]
    pages.Report(results).write()
    row = one(read(output.parents[1] / "table.csv"), metric="nll_published")
    assert float(row["mean"]) == pytest.approx((sum(DSC_NLL) + 2.6) / 8)
    before = run.path("run.json").read_bytes()
    assert folds.pool(two, output).path("run.json").read_bytes() == before


def test_scaled_runs_of_folds_are_pooled(two, tmp_path):
    results = tmp_path / "results"
    for number, (cases, found) in enumerate([(CASES, 2.0), (SECOND, 3.0)], 1):
        fitted = {"run": "dsc-s0", "temperature": found}
        make_fold(results, number, cases, DSC_NLL, method="temperature", posthoc=fitted)
    output = results / "own" / GROUP / "runs" / "dsc-s0"
    folds.pool_with_methods(two, output)
    scaled = runs.Run.open(output.with_name("dsc-s0-temperature"))
    assert scaled.record["posthoc"] == {"run": "dsc-s0", "temperature": 2.5}
    assert len(scaled.record["split"]["test"]) == 8


def test_missing_or_unevaluated_fold_is_named(two, tmp_path):
    output = tmp_path / "results" / "own" / GROUP / "runs" / "dsc-s0"
    with pytest.raises(InputError, match=r"2 folds with each of 8 cases .* found 1"):
        folds.pool(two[:1], output)
    runs.Run.open(two[1]).update(state="predicted")
    with pytest.raises(InputError, match="expected a run that is 'evaluated'"):
        folds.pool(two, output)
    shutil.rmtree(two[1])
    with pytest.raises(InputError, match="expected a run folder"):
        folds.pool(two, output)
    assert not output.exists()


def test_pooling_replaces_no_other_run(two, tmp_path):
    output = make_run(tmp_path / "results", "DSC", DSC_NLL, group=GROUP)
    with pytest.raises(InputError, match="expected no run, or its folds"):
        folds.pool(two, output)


def test_each_fold_has_its_own_folder(tmp_path):
    block = plan.Experiment("dsb2018", (("CE", None),), preset="reduced", folds=3)
    planned = plan.plan([block], tmp_path)
    group = tmp_path / "dsb2018"
    assert [run.folder for run in planned] == [
        group / f"reduced-3folds-fold{k}" / "runs" / "ce-s0" for k in (1, 2, 3)
    ]
    for k, run in enumerate(planned, 1):
        task = plan.load(run.write(tmp_path / "run.json")).task
        assert (task, task.fold, task.seed) == (run.task, (k, 3), 0)
        assert task.identity()["fold"] == [k, 3]
        pooled = task.folder(tmp_path, pooled=True)
        assert pooled == group / "reduced-3folds" / "runs" / "ce-s0"
    for fold in ("[a]", "[1]", "[1, 2, 3]", "2"):
        (tmp_path / "run.json").write_text(
            f"{{dataset: dsb2018, loss: CE, fold: {fold}}}"
        )
        with pytest.raises(InputError, match=r"run\.json: run: fold"):
            plan.load(tmp_path / "run.json")
    whole = Task.make("dsb2018", "CE", preset="reduced")
    assert whole.folder(tmp_path) == whole.folder(tmp_path, pooled=True)
    assert "fold" not in whole.identity()


@pytest.mark.slow
def test_a_data_set_with_a_fixed_split_is_refused(tmp_path, monkeypatch, capsys):
    from imitations import write_drive

    monkeypatch.chdir(tmp_path)
    root = write_drive(tmp_path / "raw")
    command = ["reproduce", "--dataset", "drive", "--data", str(root), "--folds", "5"]
    assert cli.main([*command, "--preset", "demo", "--losses", "CE"]) == 2
    assert "folds: expected a split that is drawn by seed" in capsys.readouterr().err
