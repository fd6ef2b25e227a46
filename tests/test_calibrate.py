"""`dscpp calibrate`: a decision file, and what applies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_io.errors import InputError
from pipelines import cli
from pipelines.measure import decisions, histograms
from pipelines.posthoc import decision
from pipelines.prediction import judge
from pipelines.reporting import frame
from pipelines.runs import run as runs
from pipelines.runs.predictions import scale

T = 2.0
"""The probabilities of these tests are sharpened by it."""


def write_cases(folder: Path, count: int, seed: int, side: int = 24) -> list[Any]:
    """Cases whose labels are drawn from q; what is stored is q sharpened by `T`."""
    random, cases = np.random.default_rng(seed), []
    for name in ("p", "y"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        q = random.beta(0.6, 1.2, (side, side)).astype(np.float32)
        label = random.random(q.shape) < q
        p = scale(np.stack([1 - q, q], -1), 1 / T)[..., 1]
        np.save(folder / "p" / f"c{number}.npy", p)
        Image.fromarray(label.astype(np.uint8) * 255).save(folder / f"y/c{number}.png")
        cases.append((p, label))
    return cases


def dscpp(*given: object) -> int:
    return cli.main([str(one) for one in given])


def calibrated(folder: Path, *more: object) -> dict[str, Any]:
    file = folder / "decision.json"
    given = folder / "p", folder / "y", "--output", file
    assert dscpp("calibrate", *given, *more) == 0
    return json.loads(file.read_text())


def test_temperature_threshold_and_factor_equal_those_of_the_voxels(
    tmp_path: Path,
) -> None:
    cases = write_cases(tmp_path, 12, 0)
    found = calibrated(tmp_path)
    assert found["temperature"] == pytest.approx(T, rel=0.05)
    scaled = [
        scale(np.stack([1 - p, p], -1), found["temperature"])[..., 1] for p, _ in cases
    ]
    true = sum(label.sum() for _, label in cases)
    factor = true / sum(float(p.sum(dtype=np.float64)) for p in scaled)
    assert found["volume_factors"] == {"foreground": pytest.approx(factor, rel=1e-4)}
    means = {}
    for threshold in histograms.THRESHOLDS:
        cuts = [p.astype(np.float64) >= threshold - 1e-12 for p in scaled]
        means[round(float(threshold), 2)] = np.mean([
            2 * (cut & y).sum() / (cut.sum() + y.sum())
            for cut, (_, y) in zip(cuts, cases, strict=True)
        ])  # fmt: skip
    best = max(means, key=lambda one: means[one])
    assert found["threshold"] == best
    assert found["best_dice"] == {
        "threshold": best, "dice": pytest.approx(means[best], abs=1e-5), "cases": 12
    }  # fmt: skip
    assert found["missed"] is None and found["inputs"]["cases"] == 12
    assert len(found["inputs"]["sha256"]) == 64


@pytest.mark.slow
def test_judge_applies_the_file_to_other_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path / "validation", 12, 0)
    cases = write_cases(tmp_path / "test", 6, 1)
    found = calibrated(tmp_path / "validation", "--missed", 0.2)
    promise = found["missed"]
    assert found["threshold"] == promise["threshold"] < found["best_dice"]["threshold"]
    assert promise["observed"] <= 0.2 - (1 - 0.2) / 12 + 1e-6
    out, places = tmp_path / "out", (tmp_path / "test/p", tmp_path / "test/y")
    file = tmp_path / "validation/decision.json"
    assert dscpp("judge", *places, "--output", out, "--name", "as it is") == 0
    assert not (out / "decided.csv").exists()
    applied = "--decision", file, "--name", "decided"
    assert dscpp("judge", *places, "--output", out, *applied) == 0
    assert "missed there" in capsys.readouterr().out
    rows = pd.read_csv(out / "decided.csv").set_index("measure")
    assert set(rows["loss"]) == {"decided"}
    missed, sizes, bias = [], [], []
    for p, y in cases:
        q = scale(np.stack([1 - p, p], -1), found["temperature"])[..., 1]
        cut = q.astype(np.float64) >= found["threshold"]
        missed.append((y & ~cut).sum() / y.sum())
        sizes.append(cut.sum() / y.sum())
        factor = found["volume_factors"]["foreground"]
        bias.append(q.sum(dtype=np.float64) * factor / y.sum() - 1)
    assert rows.loc["missed", "mean"] == pytest.approx(np.mean(missed))
    assert rows.loc["set_size", "mean"] == pytest.approx(np.mean(sizes))
    assert rows.loc["volume_expected", "mean"] == pytest.approx(np.mean(bias), abs=1e-5)
    nll = pd.read_csv(out / "table.csv").set_index(["loss", "metric"])["mean"]
    assert nll["decided", "nll"] < nll["as it is", "nll"]


def test_decision_file_in_the_folder_of_probabilities_does_not_block_calibrate(
    tmp_path: Path,
) -> None:
    write_cases(tmp_path, 12, 0, side=8)
    file = tmp_path / "p/decision.json"
    places = tmp_path / "p", tmp_path / "y"
    for _ in range(2):
        assert dscpp("calibrate", *places, "--output", file) == 0
    out = "--output", tmp_path / "out"
    assert dscpp("judge", *places, *out, "--decision", file) == 0


def write(folder: Path, probabilities: list[Any], labels: list[Any]) -> None:
    for name in ("p", "y"):
        (folder / name).mkdir()
    for number, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        np.save(folder / "p" / f"c{number}.npy", np.asarray(p, np.float32))
        image = Image.fromarray(np.asarray(label, np.uint8))
        image.save(folder / "y" / f"c{number}.png")


def test_cases_without_foreground_do_not_choose_the_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The true row has 0.62 and, in one of 8 voxels, 0.3; 1 of 8 below has 0.55. In each
    # healthy case one voxel has 0.63. As it is T < 1 drives these apart.
    sick, healthy = np.full((2, 8), 0.02), np.full((2, 8), 0.02)
    sick[0], sick[0, 0], sick[1, 0], healthy[1, 1] = 0.62, 0.3, 0.55, 0.63
    label = np.array([[1] * 8, [0] * 8])
    write(tmp_path, [sick, *[healthy] * 9], [label, *[0 * label] * 9])
    found = calibrated(tmp_path)
    scaled = scale(np.stack([1 - sick, sick], -1), found["temperature"])[..., 1]
    dice = {}
    for threshold in histograms.THRESHOLDS:
        cut = scaled >= threshold
        dice[float(threshold)] = 2 * (cut & (label > 0)).sum() / (cut.sum() + 8)
    best = max(dice.values())
    assert found["best_dice"]["dice"] == pytest.approx(best, abs=1e-6)
    assert dice[found["threshold"]] == best > 0.9
    assert found["best_dice"]["cases"] == 1
    assert "(1 of 10 cases has foreground)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sure", "wrong", "end"), [(0.55, 0, "found 0.05"), (0.9, 8, "found 20")]
)
def test_without_a_best_temperature_the_threshold_is_still_chosen(
    sure: float, wrong: int, end: str, tmp_path: Path, capsys: Any
) -> None:
    # 16 voxels of `sure` and 16 of its opposite; `wrong` of each are wrong.
    p = np.repeat([[sure], [1 - sure]], 16, axis=1)
    label = np.repeat([[1], [0]], 16, axis=1)
    label[:, :wrong] = 1 - label[:, :wrong]
    write(tmp_path, [p], [label])
    found = calibrated(tmp_path)
    assert found["temperature"] == 1
    # At 0.5: 16 - wrong of 16 positive voxels are right, and 16 are true. With half of
    # them wrong it is better to mark all: 2 x 16 / (32 + 16), up to 0.1.
    expected = {0: (0.5, 1.0), 8: (0.1, 2 / 3)}[wrong]
    found_best = found["best_dice"]["threshold"], found["best_dice"]["dice"]
    assert found_best == pytest.approx(expected, abs=1e-6)
    said = capsys.readouterr().out
    assert end in said and "temperature is left at 1" in said


def test_size_and_condition_of_a_promise_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One case may miss nothing: (0 + 1) / 2 = 0.5. The true voxel of 0.2 is behind five
    # false ones of 0.6: 2 + 5 voxels are marked where 2 are true.
    p = np.array([[0.9, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.1]])
    write(tmp_path, [p], [np.array([[1, 1, 0, 0, 0, 0, 0, 0]])])
    promise = calibrated(tmp_path, "--missed", 0.5)["missed"]
    assert (promise["observed"], promise["set_size"], promise["cases"]) == (0, 3.5, 1)
    said = capsys.readouterr().out
    assert "miss 0.000, and 3.5 times the true size is marked" in said
    assert promise["guarantee"] in said
    assert "one for each patient" in said and "must not have chosen" in said


def test_too_few_cases_give_no_conformal_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path, 8, 0, side=12)
    file = tmp_path / "decision.json"
    given = tmp_path / "p", tmp_path / "y", "--missed", 0.1, "--output", file
    assert dscpp("calibrate", *given) == 2
    said = capsys.readouterr().err
    assert "impossible to promise" in said and "0.111 at best" in said
    assert not file.exists()


def test_several_classes_give_no_conformal_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    (tmp_path / "y").mkdir()
    for number in range(3):
        p = random.dirichlet([1, 1, 1], (16, 16)).astype(np.float32)
        drawn = (random.random((16, 16, 1)) > p.cumsum(-1)).sum(-1).astype(np.uint8)
        np.save(tmp_path / f"p/c{number}.npy", p)
        Image.fromarray(drawn).save(tmp_path / f"y/c{number}.png")
    found = calibrated(tmp_path, "--classes", "background,a,b")
    given = tmp_path / "p", tmp_path / "y", "--output", tmp_path / "out"
    applied = "--decision", tmp_path / "decision.json"
    assert dscpp("judge", *given, *applied, "--classes", "background,b,a") == 2
    assert "those of the decision file, background, a, b" in capsys.readouterr().err
    assert set(found["volume_factors"]) == {"a", "b"}
    assert found["temperature"] == pytest.approx(1, abs=0.15)
    given = tmp_path / "p", tmp_path / "y", "--missed", 0.4
    assert dscpp("calibrate", *given, "--output", tmp_path / "other.json") == 2
    assert "one class besides the background" in capsys.readouterr().err


DECISION: dict[str, Any] = {
    "format": 1,
    "written_by": "dscpp",
    "inputs": {
        "kind": "files",
        "probabilities": "p",
        "labels": "y",
        "cases": 3,
        "sha256": "",
    },
    "classes": ["background", "foreground"],
    "temperature": 1.5,
    "threshold": 0.4,
    "best_dice": {"threshold": 0.4, "dice": 0.8},
    "missed": None,
    "volume_factors": {"foreground": 0.9},
}

FAULTS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "expected a decision file"),
    "a list": ([1], "expected an object"),
    "no temperature": ({"temperature": None}, "temperature: expected a valid number"),
    "temperature 0": ({"temperature": 0}, "temperature: expected greater than"),
    "threshold 2": ({"threshold": 2.0}, "threshold: expected less than 1"),
    "threshold as text": ({"threshold": "0.4"}, "threshold: expected a valid number"),
    "factor below 0": ({"volume_factors": {"foreground": -1.0}}, "volume_factors"),
    "later format": ({"format": 2}, "format: expected 1"),
    "one class": ({"classes": ["background"]}, "classes"),
    "another number of classes": ({"classes": ["a", "b", "c"]}, "of 3 classes"),
    "made from a run": (
        {"inputs": DECISION["inputs"] | {"kind": "run", "probabilities": "run a"}},
        "found one from run a, which is for its network",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_file_is_refused_by_name(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path, 1, 0, side=4)
    changed, message = FAULTS[fault]
    if isinstance(changed, dict):
        changed = json.dumps(DECISION | changed)
    file = tmp_path / "decision.json"
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    given = tmp_path / "p", tmp_path / "y", "--output", tmp_path / "out"
    assert dscpp("judge", *given, "--decision", file) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert "delete its" not in said  # which helps against one fault alone
    assert not (tmp_path / "out").exists()


def test_example_decision_file_loads(tmp_path: Path) -> None:
    decision.save(tmp_path / "d.json", DECISION)  # type: ignore[arg-type]
    assert decision.load(tmp_path / "d.json") == DECISION


def test_a_decision_file_that_was_changed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path, 1, 0, side=4)
    file = tmp_path / "decision.json"
    decision.save(file, DECISION)  # type: ignore[arg-type]
    file.write_text(file.read_text().replace('"threshold": 0.4', '"threshold": 0.45'))
    given = tmp_path / "p", tmp_path / "y", "--output", tmp_path / "out"
    assert dscpp("judge", *given, "--decision", file) == 2
    said = capsys.readouterr().err
    assert "decision.json" in said and "found values changed" in said
    assert not (tmp_path / "out").exists()
    # What the message says to do, by hand.
    assert 'delete its first line with "sha256"' in said
    lines = file.read_text().splitlines()
    lines.remove(next(line for line in lines if '"sha256"' in line))
    file.write_text("\n".join(lines))
    assert decision.load(file)["threshold"] == 0.45
    assert decision.load(file)["inputs"] == DECISION["inputs"]


def test_another_file_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path, 1, 0, side=8)
    file = tmp_path / "decision.json"
    file.write_text('{"mine": 1}')
    assert dscpp("calibrate", tmp_path / "p", tmp_path / "y", "--output", file) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert json.loads(file.read_text()) == {"mine": 1}
    for name in ("edited", "unsealed"):
        decision.save(tmp_path / name, DECISION)  # type: ignore[arg-type]
        file = tmp_path / name
        first, *lines = file.read_text().splitlines()
        mine = "\n".join([first, *lines[name == "unsealed" :]])
        file.write_text(mine.replace('"threshold": 0.4', '"threshold": 0.45'))
        kept = file.read_bytes()
        assert dscpp("calibrate", tmp_path / "p", tmp_path / "y", "--output", file) == 2
        assert "found one that was changed since it was" in capsys.readouterr().err
        assert file.read_bytes() == kept
    assert dscpp("calibrate", "--output", tmp_path / "d.json") == 2
    assert "PROBABILITIES and LABELS, or --run" in capsys.readouterr().err


def test_a_committed_run_gives_what_practice_csv_says(
    project: Path, tmp_path: Path
) -> None:
    folder = project / "results/dsb2018/reduced"
    name = "dscpp-s0-temperature"
    file = tmp_path / "decision.json"
    given = "--run", folder / "runs" / name, "--missed", 0.1, "--output", file
    assert dscpp("calibrate", *given) == 0
    found = json.loads(file.read_text())
    table = pd.read_csv(folder / "practice.csv")
    rows = table[(table["loss"] == "DSC++") & (table["method"] == "temperature")]
    values = rows.set_index("measure")["mean"]
    assert found["missed"]["threshold"] == pytest.approx(values["threshold_conformal"])
    assert found["best_dice"]["threshold"] == values["threshold_chosen"]
    run = json.loads((folder / "runs" / name / "run.json").read_text())
    assert found["temperature"] == run["posthoc"]["temperature"]
    one = histograms.load(folder / "runs" / name / "histograms.npz")
    of = one.where(split="validation", region="image", reference="observer1")
    missed = decisions.false_negatives(one.counts[of])
    assert found["missed"]["cases"] == (~np.isnan(missed[:, 0])).sum()
    sizes = rows[rows["measure"] == "set_size"]
    assert found["missed"]["set_size"] == pytest.approx(sizes["mean"].item(), abs=0.1)
    assert "approximate, as these also chose" in found["missed"]["guarantee"]


def stored_as(kind: str, folder: Path, p: Any) -> None:
    """Write p of the foreground, one value or more than one that rounds to 0 or 1."""
    name = folder / "c"
    if kind.startswith("uint"):
        most = np.iinfo(kind).max
        Image.fromarray(np.round(p * most).astype(kind)).save(f"{name}.png")
    elif kind == "int16":
        image = nibabel.Nifti1Image(p * 500, np.eye(4))
        image.header.set_data_dtype(np.int16)
        image.header.set_slope_inter(1 / 500, 0)
        nibabel.save(image, f"{name}.nii")
    else:
        np.save(f"{name}.npy", p.astype(kind))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float16", "float32"])
def test_probabilities_that_a_file_rounds_to_0_or_1_do_not_bend_the_temperature(
    kind: str, tmp_path: Path
) -> None:
    """Of voxels with p = 0.2 a third is true: 1 / (1 + 4^(1/T)) = 1/3, so T = 2.

    A stored 0 once counted as the logit -87, and the T of these files was 17 to 20.
    """
    for name in "p", "y":
        (tmp_path / name).mkdir()
    p = np.array([[0.2] * 6, [1e-9, 1 - 1e-9] * 3])
    label = np.array([[1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 1, 1]], np.uint8)
    if kind == "int16":
        p, label = p[..., np.newaxis], label[..., np.newaxis]
        image = nibabel.Nifti1Image(label, np.eye(4))
        nibabel.save(image, tmp_path / "y/c.nii")
    else:
        Image.fromarray(label).save(tmp_path / "y/c.png")
    stored_as(kind, tmp_path / "p", p)
    found = calibrated(tmp_path)
    assert found["temperature"] == pytest.approx(2, rel=2e-3)


def test_p_of_all_classes_in_float32_counts_however_small(tmp_path: Path) -> None:
    """Of voxels with p = 1e-5 a third is true: 1 / (1 + 1e5^(1/T)) = 1/3."""
    for name in "p", "y":
        (tmp_path / name).mkdir()
    p = np.full((1, 6), 1e-5, np.float32)
    np.save(tmp_path / "p/c.npy", np.stack([1 - p, p], -1))
    Image.fromarray(np.array([[1, 0, 0, 1, 0, 0]], np.uint8)).save(tmp_path / "y/c.png")
    found = calibrated(tmp_path)
    assert found["temperature"] == pytest.approx(np.log(1e5) / np.log(2), rel=2e-3)


def test_decided_measures_the_label_maps_that_predict_writes(tmp_path: Path) -> None:
    """At p = (0.3, 0.36, 0.34) and 0.33 the label is 1 alone, not 1 and 2."""
    for name in "p", "y":
        (tmp_path / name).mkdir()
    p = np.array([[[0.3, 0.36, 0.34], [0.3, 0.34, 0.36], [0.1, 0.2, 0.7],
                     [0.8, 0.1, 0.1]]], np.float32)  # fmt: skip
    np.save(tmp_path / "p/c.npy", p)
    Image.fromarray(np.array([[1, 1, 2, 0]], np.uint8)).save(tmp_path / "y/c.png")
    names = ["background", "a", "b"]
    changed = {"threshold": 0.33, "classes": names, "temperature": 1.0}
    given = tmp_path / "p", tmp_path / "y", tmp_path / "out", "a"
    run = judge.judge(*given, decision=DECISION | changed)  # type: ignore[arg-type]
    rows = judge.decided(frame.open_study(tmp_path / "out"))
    table = rows.set_index(["target", "measure"])["mean"]
    # Labels 1 2 2 0 of 1 1 2 0.
    assert table["a", "dice"] == pytest.approx(2 / 3)
    assert table["a", "missed"] == table["a", "set_size"] == 0.5
    assert table["b", "dice"] == pytest.approx(2 / 3)
    assert table["b", "missed"] == 0 and table["b", "set_size"] == 2
    assert run.path("threshold-0.33.csv").exists()
    judge.judge(*given)
    assert not run.path("threshold-0.33.csv").exists()


def test_a_decision_of_a_run_is_for_its_weights_alone(tmp_path: Path) -> None:
    made: Any = DECISION | {
        "inputs": DECISION["inputs"] | {"kind": "run", "model": "1"}
    }
    own = {"files": {"model.keras": "1"}, "method": ""}
    scaled = {"posthoc": {"model": "1"}, "method": "temperature"}
    for record in own, scaled:
        decision.require_network(made, tmp_path, runs.Run(tmp_path, record))
    other = runs.Run(tmp_path, {"files": {"model.keras": "2"}})
    with pytest.raises(InputError, match=r"expected the weights of p, .* found others"):
        decision.require_network(made, tmp_path, other)
    (tmp_path / "model.keras").write_bytes(b"other weights")
    with pytest.raises(InputError, match="found others"):
        decision.require_network(made, tmp_path / "model.keras", None)
    mapped = runs.Run(tmp_path, scaled | {"method": "isotonic"})
    with pytest.raises(InputError, match="found one after isotonic"):
        decision.require_network(made, tmp_path, mapped)
    old: Any = DECISION | {"inputs": DECISION["inputs"] | {"kind": "run"}}
    decision.require_network(old, tmp_path, other)
    decision.require_network(DECISION, tmp_path, mapped)  # type: ignore[arg-type]
