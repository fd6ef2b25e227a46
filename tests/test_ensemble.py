"""Deep ensembles: the means by hand and by scipy, the run, its place in the tables."""

import csv
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_volumes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from predicted_runs import make_run, seal
from scipy.special import softmax
from written_runs import make_run as write_run
from written_runs import one, read

from data_io import datasets
from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.files import hashing
from pipelines import cli, stages
from pipelines.posthoc import ensemble, scaling
from pipelines.prediction import new_images
from pipelines.reporting import frame, pages, practice
from pipelines.reporting.published import Variant
from pipelines.runs import predictions
from pipelines.runs import run as runs
from pipelines.training.task import Task

MEANS = ensemble.MEANS


def test_the_mean_of_probabilities_by_hand():
    a, b = [[0.9, 0.1], [0.5, 0.5]], [[0.6, 0.4], [0.2, 0.8]]
    found = predictions.averaged([a, b], "probabilities")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.35, 0.65]], atol=1e-7)


def test_the_mean_of_logits_by_hand():
    # The square roots of 0.8 x 0.5 and 0.2 x 0.5 are as 2 to 1.
    found = predictions.averaged([[[0.8, 0.2]], [[0.5, 0.5]]], "logits")
    np.testing.assert_allclose(found, [[2 / 3, 1 / 3]], atol=1e-7)


def test_the_mean_of_logits_is_the_softmax_of_the_mean_logits():
    # More rows than a block has; each network's logits have a shift of their own.
    logits = np.random.default_rng(0).normal(scale=4, size=(3, 37, 5, 4))
    members = [softmax(z + 7 * n, axis=-1) for n, z in enumerate(logits)]
    found = predictions.averaged(members, "logits")
    np.testing.assert_allclose(found, softmax(logits.mean(axis=0), axis=-1), atol=1e-6)


def test_a_probability_of_zero_leaves_the_mean_of_logits_finite():
    found = predictions.averaged([[[0.0, 1.0]], [[0.5, 0.5]]], "logits")
    # The smallest normal float32 is 2^-126; the roots are as 2^-63 to 1.
    assert found[0, 0] == pytest.approx(2**-63, rel=1e-5)


@settings(max_examples=60)
@pytest.mark.parametrize("mean", MEANS)
@given(
    arrays.arrays(np.float64, (3, 6, 3), elements=st.floats(-30, 30)),
    st.integers(0, 2),
)
def test_no_voxel_has_a_higher_nll_than_its_members_on_average(mean, logits, true):
    members = softmax(logits, axis=-1)
    found = predictions.averaged(list(members), mean)[:, true]
    of_members = -np.log(members[..., true]).mean(axis=0)
    assert np.all(-np.log(found) <= of_members * (1 + 1e-6) + 1e-6)


@pytest.fixture
def here(tmp_path):
    """Three predicted runs of seeds 0, 1 and 10, side by side."""
    numbers = phantom.Settings(training=1, validation=2, test=2, size=32, seed=4)
    data = phantom.generate(numbers, tmp_path / "phantom")
    group = tmp_path / "runs"
    powers = {0: 0.5, 1: 1.5, 10: 3.0}
    members = [make_run(group / f"dsc-s{s}", data, p, s) for s, p in powers.items()]
    return SimpleNamespace(data=data, group=group, members=members, work=tmp_path / "w")


def command(here, *words, members=None):
    folders = [str(member.folder) for member in members or here.members]
    places = ["--data", str(here.data), "--work", str(here.work)]
    return cli.main(["ensemble", *folders, *places, *words])


def rows_of(run):
    with run.path("cases.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["region"] == "image"]


def test_the_ensemble_is_a_run_beside_its_members(here, capsys):
    # Given in another order, they are sorted by seed.
    assert command(here, members=here.members[::-1]) == 0
    run = runs.Run.open(here.group / "dsc-s0-ensemble-3")
    assert str(run.folder) in capsys.readouterr().out
    assert (run.state, run.method, run.record["seed"]) == ("evaluated", "ensemble-3", 0)
    assert set(run.record["posthoc"]["members"]) == {m.name for m in here.members}
    assert list(run.folder.rglob("*.npy")) == []
    for row in rows_of(run):
        kept = [np.load(predictions.path(m, row["case"])) for m in here.members]
        p = np.mean(kept, axis=0)[..., 1]
        y = phantom.vessels.references(here.data, row["case"])["observer1"] == 1
        nll = -(np.log(p[y]).sum() + np.log(1 - p[~y]).sum()) / y.size
        assert float(row["nll"]) == pytest.approx(nll, rel=1e-5)
        dice = 2 * (y & (p > 0.5)).sum() / (y.sum() + (p > 0.5).sum())
        assert float(row["dice"]) == pytest.approx(dice, rel=1e-8)
        assert (row["method"], row["seed"]) == ("ensemble-3", "0")


def test_the_ensemble_of_logits_is_another_run(here):
    assert command(here, "--mean", "logits") == 0
    run = runs.Run.open(here.group / "dsc-s0-ensemble-3-logits")
    case = run.record["split"]["test"][0]
    # p to powers whose mean is 5 / 3: the mean of logits has that power.
    p = phantom.vessels.posterior(here.data, case)
    expected = scaling.scale(np.stack([1 - p, p], -1), 3 / 5)
    found = predictions.probabilities(run, case, (32, 32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "--mean logits" in run.remake()


def test_given_again_nothing_is_averaged(here, monkeypatch):
    assert command(here) == 0
    monkeypatch.setattr(ensemble, "make", None)
    assert command(here) == 0


def predicted_anew(member):
    """Other probabilities of the same weights, as from another machine."""
    for _, case in predictions.cases(member):
        np.save(
            predictions.path(member, case), np.full((32, 32, 2), CONSTANT, np.float32)
        )
    seal(member)


CONSTANT = (0.7, 0.3)  # of background and vessel, everywhere


def nll_of_constant(here, cases):
    """Mean -log p of the true class over the pixels of all cases."""
    labels = [phantom.vessels.references(here.data, c)["observer1"] for c in cases]
    share = np.mean(labels)
    return -(1 - share) * math.log(0.7) - share * math.log(0.3)


def test_members_with_other_probabilities_are_averaged_anew(here):
    command(here, members=here.members[:2])
    folder, data = here.group / "dsc-s0-ensemble-2", str(here.data)
    scaling_command = ["temperature", "--run", str(folder), "--data", data]
    assert cli.main(scaling_command) == 0
    before = runs.Run.open(folder.with_name("dsc-s0-ensemble-2-temperature")).record
    for member in here.members[:2]:
        predicted_anew(member)
    run = runs.Run.open(folder)
    with pytest.raises(InputError, match="that dsc-s0-ensemble-2 was made from"):
        predictions.probabilities(run, run.record["split"]["test"][0], (32, 32))
    assert command(here, members=here.members[:2]) == 0
    for row in rows_of(run):
        expected = nll_of_constant(here, [row["case"]])
        assert float(row["nll"]) == pytest.approx(expected, rel=1e-6)
    assert cli.main(scaling_command) == 0
    after = runs.Run.open(folder.with_name("dsc-s0-ensemble-2-temperature")).record
    expected = nll_of_constant(here, run.record["split"]["validation"])
    assert after["posthoc"]["nll_before"] == pytest.approx(expected, rel=1e-5)
    assert before["posthoc"]["nll_before"] != pytest.approx(expected, rel=1e-2)


def test_members_of_other_weights_are_averaged_anew(here):
    command(here)
    folder = here.group / "dsc-s0-ensemble-3"
    before = runs.Run.open(folder).record["posthoc"]
    here.members[1].record["files"][runs.MODEL] = "of other weights"
    here.members[1].update()
    assert command(here) == 0
    after = runs.Run.open(folder).record["posthoc"]
    assert after["model"] != before["model"]
    assert after["members"] == before["members"]


def test_a_temperature_can_follow(here):
    command(here)
    folder = here.group / "dsc-s0-ensemble-3"
    words = ["--data", str(here.data), "--work", str(here.work)]
    assert cli.main(["temperature", "--run", str(folder), *words]) == 0
    scaled = runs.Run.open(here.group / "dsc-s0-ensemble-3-temperature")
    assert scaled.method == "ensemble-3 + temperature"
    assert scaled.trained == here.group / "dsc-s0"
    fitted, case = scaled.record["posthoc"], scaled.record["split"]["test"][0]
    assert fitted["nll_after"] < fitted["nll_before"]
    mean = np.mean(
        [np.load(predictions.path(m, case)) for m in here.members], axis=0
    ).astype(np.float64)
    expected = softmax(np.log(mean) / fitted["temperature"], axis=-1)
    found = predictions.probabilities(scaled, case, (32, 32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert scaled.remake() == f"dscpp temperature --again --run {folder}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 0}, "expected another seed than that of"),
        ({"loss": "CE"}, "expected the loss of dsc-s0, 'DSC', found 'CE'"),
        ({"gamma": 3.0}, "expected the gamma of dsc-s0"),
        ({"preset": "paper"}, "expected the preset of dsc-s0, 'demo', found 'paper'"),
        ({"data_hash": "b" * 64}, "expected the data_hash of dsc-s0"),
        ({"settings": {"epochs": 99}}, "found {'epochs': 99}; an ensemble is of"),
        ({"dataset": "drive"}, "expected the dataset of dsc-s0"),
        ({"split": {"training": [], "test": ["a"]}}, "expected the split of dsc-s0"),
        ({"method": "temperature"}, "found one after temperature"),
        ({"fold": [1, 5]}, "expected a run without --folds"),
        ({"folds": 5}, "found the cases of all folds of a cross-validation"),
        ({"replicate": 2, "seed": 0}, "expected another seed than that of"),
    ],
)
def test_runs_that_are_no_ensemble_are_refused(here, capsys, change, message):
    first, second, _ = here.members
    second.update(**change)
    if "split" in change:  # dictionaries are merged
        second.record["split"] = change["split"]
        second.update()
    assert command(here, members=[first, second]) == 2
    found = " ".join(capsys.readouterr().err.split())
    assert message in found
    assert str(second.folder) in found
    assert not (here.group / "dsc-s0-ensemble-2").exists()


def test_a_run_with_itself_and_a_run_alone_are_refused(here, capsys):
    first = here.members[0]
    assert command(here, members=[first, first]) == 2
    assert "expected another seed" in capsys.readouterr().err
    assert command(here, members=[first]) == 2
    assert "expected two runs or more, received 1" in capsys.readouterr().err


def test_a_run_of_another_folder_is_refused(here, capsys):
    away = here.group.with_name("away") / "dsc-s1"
    shutil.copytree(here.members[1].folder, away)
    pair = [here.members[0], runs.Run.open(away)]
    assert command(here, members=pair) == 2
    assert "an ensemble is of runs of one folder" in capsys.readouterr().err


def test_another_ensemble_in_its_place_is_kept(here, capsys):
    assert command(here, members=here.members[:2]) == 0
    pair = [here.members[0], here.members[2]]
    assert command(here, members=pair) == 2
    assert "expected no run, or the mean of dsc-s0, dsc-s10" in capsys.readouterr().err


def test_a_second_ensemble_that_shares_a_member_is_refused(here, capsys):
    assert command(here, members=here.members[:2]) == 0
    assert command(here, members=here.members[1:]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"without a member of {here.group / 'dsc-s0-ensemble-2'}" in said
    assert "found dsc-s1 in both" in said
    assert not (here.group / "dsc-s1-ensemble-2").exists()
    assert command(here) == 0  # three networks are another row of the tables
    assert command(here, "--mean", "logits", members=here.members[1:]) == 0


def test_a_decision_file_is_for_one_network(here, capsys):
    command(here)
    folder, output = here.group / "dsc-s0-ensemble-3", here.group / "decision.json"
    words = ["--data", str(here.data), "--work", str(here.work)]
    cli.main(["scale", "--method", "isotonic", "--run", str(folder), *words])
    for name in (folder.name, f"{folder.name}-isotonic"):
        path = str(folder.with_name(name))
        assert cli.main(["calibrate", "--run", path, "--output", str(output)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{path}: expected a run of one network" in said
        assert not output.exists()


def test_a_card_names_the_members(here, capsys):
    command(here, members=here.members[:2])
    folder = here.group / "dsc-s0-ensemble-2"
    words = ["--data", str(here.data), "--work", str(here.work)]
    cli.main(["temperature", "--run", str(folder), *words])
    capsys.readouterr()
    cards = []
    for name in ("dsc-s0", folder.name, f"{folder.name}-temperature"):
        run = stages.evaluate(here.group / name, here.data, here.work)
        assert cli.main(["card", str(run.folder)]) == 0
        cards.append(capsys.readouterr().out)
    mean = "- The mean of 2 networks: runs dsc-s0, dsc-s1. No network of its own."
    assert [mean in text for text in cards] == [False, True, True]
    assert ["; seed 0;" in text for text in cards] == [True, False, False]
    assert ["One training: seeds" in text for text in cards] == [True, False, False]
    assert ["- After training: " in text for text in cards] == [False, False, True]
    assert ["2 trainings of other seeds: splits" in text for text in cards][1:] == (
        [True, True]
    )


def test_an_ensemble_has_no_network_of_its_own(here):
    command(here)
    folder = here.group / "dsc-s0-ensemble-3"
    with pytest.raises(InputError, match="found one after ensemble-3"):
        new_images.require_model(folder)
    with pytest.raises(InputError, match="found one after ensemble-3"):
        stages.predict(folder, here.data, here.work, again=True)


MEMBERS = {"members": {"ce-s0": "", "ce-s1": ""}, "run": "ce-s0"}


def test_tables_take_an_ensemble_as_one_run(tmp_path):
    group = tmp_path / "drive" / "paper"
    write_run(tmp_path, "CE", (0.1, 0.2, 0.4, 0.5))
    write_run(tmp_path, "CE", (0.3, 0.4, 0.6, 0.7), seed=1)
    write_run(
        tmp_path, "CE", (0.1, 0.3, 0.5, 0.7), method="ensemble-2", posthoc=MEMBERS
    )
    pages.Report(tmp_path).write()
    rows = read(group / "table.csv")
    wanted = {"loss": "CE", "metric": "nll_published"}
    single = one(rows, **wanted, method="")
    mean = one(rows, **wanted, method="ensemble-2")
    assert (single["seeds"], mean["seeds"], mean["mean"]) == ("2", "1", "0.4")
    # No spread over seeds is known of it: its error is that over images alone.
    alone = np.std([0.1, 0.3, 0.5, 0.7], ddof=0) / 2
    assert float(mean["standard_error"]) == pytest.approx(alone, rel=0.1)
    spread = math.hypot(np.std([0.2, 0.3, 0.5, 0.6]) / 2, 0.2 / math.sqrt(2) ** 2)
    assert float(single["standard_error"]) == pytest.approx(spread, rel=0.1)
    # Tests are of two losses as they were trained, each pair once.
    write_run(tmp_path, "DSC", (0.2, 0.1, 0.2, 0.4))
    pages.Report(tmp_path).write()
    tests = read(group / "tests.csv")
    assert {(row["loss_a"], row["loss_b"]) for row in tests} == {("CE", "DSC")}
    assert len(tests) == 6 * 2  # metrics, tests
    practice = read(group / "practice.csv")
    assert one(practice, loss="CE", method="ensemble-2", measure="dice_half")


def test_the_second_ensemble_that_shares_a_member_is_in_no_table(tmp_path, capsys):
    write_run(tmp_path, "CE")
    ensemble_of(tmp_path, (0, 1), (0.1, 0.2, 0.3, 0.4))
    scaled = {"method": "ensemble-2 + temperature", "name": "ce-s1-ensemble-2-t"}
    posthoc = {"run": "ce-s1-ensemble-2", "trained": "ce-s1", "temperature": 2.0}
    second = ensemble_of(tmp_path, (1, 2), (0.5, 0.6, 0.7, 0.8))
    listed = predictions.listed(runs.Run.open(second))
    posthoc["probabilities"] = listed
    write_run(tmp_path, "CE", seed=1, posthoc=posthoc, **scaled)
    assert cli.main(["tables", "--results", str(tmp_path)]) == 0
    rows = read(tmp_path / "drive" / "paper" / "table.csv")
    found = [row for row in rows if row["metric"] == "nll_published"]
    assert {(row["method"], row["mean"], row["seeds"]) for row in found} == (
        {("", "0.3", "1"), ("ensemble-2", "0.25", "1")}
    )
    said = capsys.readouterr().err
    assert f"left out: {second}: expected no member of" in said
    assert "found ce-s1 in both" in said
    assert "found ce-s1-ensemble-2, left out too" in said


def test_an_ensemble_left_out_takes_no_member_from_the_next(tmp_path):
    write_run(tmp_path, "CE")
    for seeds in ((0, 3), (1, 3), (2, 1)):  # the second shares 3 with the first
        ensemble_of(tmp_path, seeds, (0.1, 0.2, 0.3, 0.4))
    (out,) = frame.left_out_of(tmp_path)
    assert "ce-s1-ensemble-2: expected no member of" in out


def ensemble_of(results, seeds, nll, lists=("", ""), **record):
    """The run folder of an ensemble of CE, written by hand."""
    members = {f"ce-s{seed}": text for seed, text in zip(seeds, lists, strict=True)}
    posthoc = {"members": members, "run": f"ce-s{seeds[0]}", "mean": "probabilities"}
    method = f"ensemble-{len(seeds)}"
    return write_run(
        results, "CE", nll, seed=seeds[0], method=method, posthoc=posthoc, **record
    )


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({}, ""),
        ({"files": {predictions.LIST: "b"}}, "expected the probabilities of ce-s1"),
        ({"commit": "c" * 40 + "+"}, "found ce-s1, left out too"),
    ],
)
def test_tables_look_at_the_members_at_hand(tmp_path, capsys, member, reason):
    files = {predictions.LIST: "a"}
    write_run(tmp_path, "CE", files=files)
    write_run(
        tmp_path, "CE", (0.1, 0.2, 0.3, 0.4), seed=1, **{"files": files, **member}
    )
    folder = ensemble_of(tmp_path, (0, 1), (0.1, 0.1, 0.1, 0.1), lists=("a", "a"))
    assert cli.main(["tables", "--results", str(tmp_path)]) == 0
    methods = {row["method"] for row in read(tmp_path / "drive/paper/table.csv")}
    assert methods == ({""} if reason else {"", "ensemble-2"})
    said = capsys.readouterr().err
    assert (f"left out: {folder}: " in said) == bool(reason)
    assert reason in said


def test_a_temperature_of_an_ensemble_is_in_its_table(tmp_path):
    write_run(tmp_path, "CE", (0.1, 0.2, 0.3, 0.4))
    temperature = {"run": "ce-s0", "temperature": 3.0}
    write_run(tmp_path, "CE", method="temperature", posthoc=temperature)
    before = {"nll": (0.2, 0.4, 0.6, 0.8)}
    ensemble_of(tmp_path, (0, 1), (0.1, 0.1, 0.1, 0.1), measures=before)
    after = {"nll": (0.1, 0.2, 0.3, 0.4)}
    posthoc = {"run": "ce-s0-ensemble-2", "trained": "ce-s0", "temperature": 2.0}
    method = "ensemble-2 + temperature"
    write_run(
        tmp_path, "CE", method=method, name="ce-s0-ensemble-2-temperature",
        posthoc=posthoc, measures=after,
    )  # fmt: skip
    isotonic = {"run": "ce-s0-ensemble-2", "trained": "ce-s0"}
    write_run(
        tmp_path, "CE", method="ensemble-2 + isotonic", posthoc=isotonic,
        name="ce-s0-ensemble-2-isotonic",
    )  # fmt: skip
    (page,) = pages.Report(tmp_path).pages
    rows = page.files["temperature.csv"]
    rows = rows[(rows["method"] == method) & (rows["metric"] == "nll")]
    (row,) = rows.to_dict("records")
    assert (row["temperature"], row["seeds"]) == (2, 1)
    assert (row["before"], row["after"]) == (pytest.approx(0.5), pytest.approx(0.25))
    assert row["difference"] == pytest.approx(-0.25)
    text = page.topic("temperature")
    assert "| CE + ensemble-2 | 1 | 2.00 | 0.500 | 0.250 |" in text
    assert "| CE | 1 | 3.00 |" in text
    named = practice.described(page.study, page.files)
    assert "CE + ensemble-2 + temperature" in named
    assert "isotonic" not in named


@pytest.mark.parametrize(
    "variant",
    [
        Variant("CE", method="ensemble-3"),
        Variant("CE", method="ensemble-3-logits + temperature"),
        Variant("DSC++", 2.5, method="ensemble-12", threshold=0.8),
        Variant("Soft L1-ACE", method="temperature"),
    ],
)
def test_a_label_is_read_as_what_it_was_written_of(variant):
    assert Variant.parse(variant.label) == variant


def test_the_ensemble_of_volumes_and_several_classes(tmp_path):
    data = tiny_volumes.write(tmp_path / "kits19")
    cases = sorted(path.name for path in data.iterdir())
    split = {"training": cases[:2], "validation": cases[2:3], "test": cases[3:]}
    module, random = datasets.by_name("kits19"), np.random.default_rng(0)
    hashes = hashing.case_hashes(module, data, cases, tmp_path / "cache")
    classes, members = list(module.record(data).classes), []
    for seed in (0, 1):
        record = Task.make("kits19", "DSC", seed=seed, preset="demo").identity()
        record |= {"split": split, "classes": classes}
        record |= {"data_hash": hashing.data_hash(hashes), "title": "KiTS19"}
        record |= {"simulated": True, "preprocessing": {}, "files": {}}
        run = runs.Run.create(tmp_path / "runs" / f"dsc-s{seed}", record)
        run.path("probabilities").mkdir()
        for case in [*split["validation"], *split["test"]]:
            label = module.references(data, case)["observer1"]
            noise = random.normal(scale=2, size=(*label.shape, 3))
            p = softmax(2 * np.eye(3)[label] + noise, axis=-1)
            np.save(predictions.path(run, case), p.astype(np.float32))
        members.append(seal(run))
    folders = [run.folder for run in members]
    run = stages.ensemble(folders, data, tmp_path / "work")
    assert run.method == "ensemble-2"
    found = [row for row in rows_of(run) if row["split"] == "test"]
    assert len(found) == 2 * 2  # cases, classes
    for row in found:
        label = module.references(data, row["case"])["observer1"]
        kept = [np.load(predictions.path(m, row["case"])) for m in members]
        marked = np.mean(kept, axis=0).argmax(axis=-1) == classes.index(row["target"])
        true = label == classes.index(row["target"])
        dice = 2 * (marked & true).sum() / (marked.sum() + true.sum())
        assert float(row["dice"]) == pytest.approx(dice, rel=1e-8)
