"""Our losses under the conformance suite, and the suite itself under planted faults."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textbook import FAULTS, Textbook

import conformance
import losses
from conformance import __main__ as command
from conformance import reference


def ours(name: str, **settings: Any) -> conformance.Adapter:
    """One of our losses, by name, with all that it takes."""
    own = [*conformance.MEMBERS[name].defaults, "dtype", "ignore_background"]
    own.append("soft_labels")
    return conformance.KerasAdapter(
        lambda **given: losses.by_name(name, reduction=None, **given),
        name=f"losses.by_name({name!r})",
        factory=True,
        options=own,
        weight="sample_weight",
        settings=settings,
        axis=settings.get("axis", -1),
        from_logits=settings.get("from_logits", False),
    )


QUICK = ("DSC", "DSC++", "Focal")
# In float64 one of each formula is enough on the other backends: JAX compiles each
# operation anew.
DOUBLE = ("Focal", "Focal Tversky++", "Combo++", "Unified Focal++", "Soft L1-ACE")
MEMBERS = [
    pytest.param(
        name,
        precision,
        marks=[pytest.mark.slow] * (name not in QUICK)
        + [pytest.mark.backend] * (precision == "float32" or name in DOUBLE),
    )
    for precision in conformance.PRECISIONS
    for name in losses.names()
]


@pytest.mark.parametrize(("name", "precision"), MEMBERS)
def test_our_losses_conform(name: str, precision: str) -> None:
    report = conformance.run(ours(name), name, precisions=[precision])
    assert report.ok, report.text()
    skipped = {each.check for each in report.results if each.outcome == "skip"}
    none = {"values_agree_with_other_hyperparameters"}  # CE has no hyperparameter
    assert skipped == (none if name == "CE" else set())


@pytest.mark.backend
@pytest.mark.parametrize("name", ["Focal", "Combo++", "Unified Focal++"])
def test_our_losses_conform_from_logits_and_channels_first(name: str) -> None:
    report = conformance.run(
        ours(name, axis=1, from_logits=True),
        name,
        precisions=["float32"],
        checks=[
            "values_agree",
            "a_mask_is_as_if_voxels_were_absent",
            "background_can_be_ignored",
            "gradients_agree",
            "soft_labels_can_be_reached",
            "finite_at_p_at_0_and_1",
        ],
    )
    assert report.ok, report.text()
    assert {each.outcome for each in report.results} == {"pass"}


def test_reference_and_package_have_the_same_losses() -> None:
    assert list(conformance.MEMBERS) == losses.names()
    for name, member in conformance.MEMBERS.items():
        assert member.defaults == losses.by_name(name).defaults


@pytest.mark.parametrize("name", ["Hard L1-ACE", "Soft L1-ACE", "NACL"])
def test_checks_that_are_left_out_are_untrue(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = conformance.MEMBERS[name]
    assert member.untrue
    everything = replace(member, untrue=frozenset())
    monkeypatch.setitem(conformance.MEMBERS, name, everything)
    report = conformance.run(
        ours(name), name, precisions=["float64"], checks=member.untrue
    )
    assert {each.check for each in report.failures} == member.untrue


# --- the reference, by hand ----------------------------------------------------------

# One 2x3 image. Foreground in the left column; TP 2.75 and 1.75, FN 1.25 and 0.25,
# FP 0.25 and 1.25; with the power 2 FN 0.5625 and 0.0625, FP the other way round.
Y1 = np.array([[1, 0, 0], [1, 0, 0]])
P1 = np.array([[0.75, 0.5, 0.25], [1, 0.5, 0]])
Y, P = np.stack([1 - Y1, Y1], -1)[None], np.stack([1 - P1, P1], -1)[None]
QUARTER = np.log(8 / 3) / 12  # of the cross entropy
BACKGROUND = 2 * 0.5**0.5 * np.log(2) + 0.25**0.5 * np.log(4 / 3)
FOREGROUND = np.log(4 / 3)
FOCAL = (0.4 * BACKGROUND + 0.6 * FOREGROUND) / 6
SYMMETRIC = (0.4 * BACKGROUND + 0.6 * 0.25**0.5 * FOREGROUND) / 6
BY_HAND = {
    "CE": 2 * np.log(8 / 3) / 6,
    "Focal": 0.5 * (2 * np.log(4 / 3) / 16 + 2 * np.log(2) / 4) / 6,
    "DSC": (1.5 / 7 + 1.5 / 5) / 2,
    "DSC++": (0.625 / 6.125 + 0.625 / 4.125) / 2,
    "Tversky": (0.95 / 3.7 + 0.55 / 2.3) / 2,
    "Tversky++": (0.4125 / 3.1625 + 0.2125 / 1.9625) / 2,
    "Focal Tversky": ((0.95 / 3.7) ** 0.75 + (0.55 / 2.3) ** 0.75) / 2,
    "Focal Tversky++": ((0.4125 / 3.1625) ** 0.75 + (0.2125 / 1.9625) ** 0.75) / 2,
    "Combo": QUARTER - (1 - (1.5 / 7 + 1.5 / 5) / 2) / 2,
    "Combo++": QUARTER - (1 - (0.625 / 6.125 + 0.625 / 4.125) / 2) / 2,
    "Unified Focal": ((0.85 / 3.6 + (0.65 / 2.4) ** 0.5) / 2 + FOCAL) / 2,
    "Unified Focal++": ((0.3625 / 3.1125 + (0.2625 / 2.0125) ** 0.5) / 2 + FOCAL) / 2,
    "Symmetric Unified Focal": (
        ((0.85 / 3.6) ** 0.5 + (0.65 / 2.4) ** 0.5) / 2 + SYMMETRIC
    )
    / 2,
    "Symmetric Unified Focal++": (
        ((0.3625 / 3.1125) ** 0.5 + (0.2625 / 2.0125) ** 0.5) / 2 + SYMMETRIC
    )
    / 2,
}
# Of each class .75, .5 twice, .25, 1 and 0 have a bin each, the last two no gap.
# The first four are at the edge of two soft bins, half in each.
OVERLAP_AND_ENTROPY = BY_HAND["DSC"] + BY_HAND["CE"]
BY_HAND["Hard L1-ACE"] = OVERLAP_AND_ENTROPY + (0.25 + 0.5 + 0.25) / 5
BY_HAND["Soft L1-ACE"] = OVERLAP_AND_ENTROPY + 2 * (0.25 + 0.5 + 0.25) / 8
# Shares of foreground 1/2, 1/3 and 0 by column; logits of 3/4, 1/2, 1/4; end, 1/2, end.
LAST = np.log(1e7 - 1)
COLUMNS = (np.log(3) + LAST, 2 / 3, np.log(3) - 1 + LAST - 1)
BY_HAND["NACL"] = BY_HAND["CE"] + 0.1 * sum(COLUMNS) / 6 / 2


@pytest.mark.parametrize("name", conformance.MEMBERS)
def test_reference_by_hand(name: str) -> None:
    value, scale = reference(name, Y, P)
    # The clip at 1e-7 is in no figure by hand.
    assert value.item() == pytest.approx(BY_HAND[name], rel=1e-6)
    combo = name.startswith("Combo")
    expected = 2 * QUARTER - value if combo else value
    assert scale.item() == pytest.approx(expected.item(), rel=1e-6)


def test_reference_accepts_any_class_axis() -> None:
    first = np.moveaxis(Y, -1, 1), np.moveaxis(P, -1, 1)
    for name in conformance.MEMBERS:
        assert reference(name, *first, axis=1).value == reference(name, Y, P).value


def test_reference_with_weights_by_hand() -> None:
    y = np.array([[[1, 0], [0, 1], [1, 0]]])
    p = np.array([[[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]]])
    weight = np.array([[1.0, 3.0, 0.0]])
    ce = reference("CE", y, p, weight=weight).value
    assert ce.item() == pytest.approx((np.log(2) + 3 * np.log(4)) / 4)
    # TP 0.5 and 0.75; FN 0.25 and 27/16, FP the other way round.
    errors = 31 / 16
    dice = (errors / (1 + errors) + errors / (1.5 + errors)) / 2
    ours = reference("DSC++", y, p, weight=weight).value
    assert ours.item() == pytest.approx(dice, rel=1e-6)
    assert reference("CE", y, p, weight=np.zeros((1, 3))).value == 0
    assert reference("DSC++", y, p, weight=np.zeros((1, 3))).value == 0


def test_reference_without_background_by_hand() -> None:
    options = {"ignore_background": True}
    assert reference("CE", Y, P, **options).value.item() == pytest.approx(
        np.log(4 / 3) / 6, rel=1e-6
    )
    assert reference("DSC", Y, P, **options).value.item() == pytest.approx(1.5 / 5)
    entropy = (np.log(4 / 3) + 2 * np.log(2) + np.log(4 / 3)) / 12
    combo = (entropy - (1 - 1.5 / 5)) / 2
    assert reference("Combo", Y, P, **options).value.item() == pytest.approx(
        combo, rel=1e-6
    )
    unified = ((0.65 / 2.4) ** 0.5 + 0.6 * FOREGROUND / 6) / 2
    assert reference("Unified Focal", Y, P, **options).value.item() == pytest.approx(
        unified, rel=1e-6
    )


def test_reference_on_soft_labels_by_hand() -> None:
    # y = p = 1/2: TP, FN and FP are n / 4; with the power 2 FN and FP are n / 16.
    half = np.full((1, 3, 5, 2), 0.5)
    assert reference("CE", half, half).value.item() == pytest.approx(np.log(2))
    assert reference("DSC", half, half).value.item() == pytest.approx(1 / 2)
    assert reference("DSC++", half, half).value.item() == pytest.approx(1 / 5)


def test_reference_with_soft_labels_option_by_hand() -> None:
    y = np.array([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]])
    p = np.array([[[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]]])
    # Class 0: TP 0.25 + 0.75, FN 0.25² + 0.25², FP 0.5². Class 1: TP 0.5 + 0.5, FN
    # 0.5², FP 0.25² + 0.25². With alpha 0.3 of FP and beta 0.7 of FN.
    one, two = 0.3 * 0.25 + 0.7 * 0.125, 0.3 * 0.125 + 0.7 * 0.25
    expected = (one / (1 + one) + two / (1 + two)) / 2
    value = reference("Tversky++", y, p, soft_labels=True).value
    assert value.item() == pytest.approx(expected, rel=1e-6)
    dice = reference("DSC++", y, p, soft_labels=True).value
    assert dice.item() == pytest.approx(0.375 / 2.375, rel=1e-6)
    focal = reference("Focal", y, p, soft_labels=True).value
    logs = 0.5 * np.log(0.25) + 0.5 * np.log(0.75) + np.log(0.75)
    expected = -(logs / 16 + np.log(0.5) / 4) / 2 / 3
    assert focal.item() == pytest.approx(expected, rel=1e-6)


def test_reference_holds_p_at_1e_7() -> None:
    y, p = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    assert reference("CE", y, p).value.item() == pytest.approx(-np.log(1e-7))


def test_reference_refuses_invalid_arguments() -> None:
    with pytest.raises(ValueError, match=r"one of CE, Focal, .*received 'dice'"):
        reference("dice", Y, P)
    with pytest.raises(ValueError, match=r"DSC: expected .* epsilon, received gamma"):
        reference("DSC", Y, P, gamma=2)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3, 2\), received \(1, 2, 3"):
        reference("DSC", Y[..., :1], P)


# --- adapters ------------------------------------------------------------------------


def native_dice(y: Any, p: Any, gamma: float = 2.0, epsilon: float = 1e-7) -> Any:
    """DSC++ in what NumPy, PyTorch and JAX have in common; channels first."""
    spatial = tuple(range(2, p.ndim))
    p = p.clip(1e-7, 1 - 1e-7)
    wrong = (y**gamma * (1 - p) ** gamma + (1 - y) ** gamma * p**gamma).sum(spatial)
    return (wrong / (2 * (y * p).sum(spatial) + wrong + epsilon)).mean(1)


@pytest.mark.backend
@pytest.mark.parametrize("framework", ["torch", "jax", "numpy"])
@pytest.mark.parametrize("reduced", [False, True])
def test_native_adapters(framework: str, reduced: bool) -> None:
    pytest.importorskip(framework)

    def loss(p: Any, y: Any, **given: float) -> Any:
        values = native_dice(y, p, **given)
        return values.mean() if reduced else values

    adapter = conformance.FRAMEWORKS[framework](
        loss,
        axis=1,
        options=["gamma", "epsilon"],
        dtypes=["float32", "float64"],
        pred_first=True,
    )
    checks = ["values_agree", "gradients_agree", "images_are_independent"]
    checks.append("float16_is_computed_in_float32")
    report = conformance.run(adapter, "DSC++", checks=checks)
    assert report.ok, report.text()
    outcomes = {(each.check, each.precision): each.outcome for each in report.results}
    expected = "skip" if framework == "numpy" else "pass"
    assert outcomes["gradients_agree", "float64"] == expected
    assert outcomes["float16_is_computed_in_float32", "float32"] == "skip"


def test_an_adapter_reads_the_signature() -> None:
    adapter = conformance.NumpyAdapter(native_dice)
    assert {"gamma", "epsilon"} <= adapter.options
    assert adapter.name == "native_dice"
    assert not adapter.factory
    assert conformance.NumpyAdapter(NumpyDice).factory
    with pytest.raises(TypeError, match="native_dice takes no weight of voxels"):
        adapter.values(Y, P, weight=Y1[None])


# --- the suite under planted faults --------------------------------------------------


@pytest.mark.parametrize("name", sorted({name for _, name, _ in FAULTS}))
def test_textbook_passes_the_checks_that_catch_its_faults(name: str) -> None:
    # A third implementation, plain and right: what the faults below are planted in.
    checks = sorted({check for _, other, check in FAULTS if other == name})
    report = conformance.run(written_as(Textbook, name), name, checks=checks)
    assert report.ok, report.text()


@pytest.mark.parametrize(
    ("fault", "name", "check"),
    FAULTS,
    ids=[f"{fault.__name__}-{name}" for fault, name, _ in FAULTS],
)
def test_planted_faults_are_caught(fault: type, name: str, check: str) -> None:
    report = conformance.run(written_as(fault, name), name, checks=[check])
    assert report.failures
    assert all(" expected " in each.reason for each in report.failures), report.text()


def written_as(kind: type, name: str) -> conformance.Adapter:
    defaults = conformance.MEMBERS[name].defaults
    return conformance.KerasAdapter(
        kind(name, dict(defaults)),
        options=[*defaults, "ignore_background", "soft_labels"],
        weight="weight",
    )


# --- reports and the command ---------------------------------------------------------


def numpy_dice(y: Any, p: Any, gamma: float = 2.0) -> Any:
    """DSC++ as somebody may have it: NumPy, channels first, another epsilon."""
    p, spatial = p.astype("float64"), tuple(range(2, p.ndim))
    tp = (y * p).sum(spatial)
    wrong = ((y * (1 - p)) ** gamma + ((1 - y) * p) ** gamma).sum(spatial)
    return (wrong / (2 * tp + wrong + 1e-5)).mean(1)


class NumpyDice:
    """The same as a class."""

    def __init__(self, gamma: float = 2.0, smooth: float = 0.0) -> None:
        self.gamma, self.smooth = gamma, smooth

    def __call__(self, y: Any, p: Any) -> Any:
        return numpy_dice(y, p, self.gamma) + self.smooth


def test_report_lists_outcomes_with_reasons() -> None:
    adapter = conformance.NumpyAdapter(numpy_dice, axis=1)
    report = conformance.run(adapter, "DSC++", epsilon=1e-5, precisions=["float64"])
    outcomes = {each.check: each.outcome for each in report.results}
    assert report.ok, report.text()
    assert outcomes["values_agree"] == "pass"
    assert outcomes["gradients_agree"] == "skip"
    assert "numpy has no gradients" in report.text()
    assert "gradients_agree                          float64  skip" in report.text()
    assert report.text().startswith("DSC++, epsilon=1e-05: numpy_dice (numpy)\n")
    assert report.text().splitlines()[-1].startswith("18 passed, 0 failed, 7 skipped")


def test_a_failure_names_input_expected_received_and_tolerance() -> None:
    adapter = conformance.NumpyAdapter(lambda y, p: 2 * numpy_dice(y, p), axis=1)
    report = conformance.run(adapter, "DSC++", epsilon=1e-5, checks=["values_agree"])
    assert [each.precision for each in report.failures] == ["float32", "float64"]
    assert not report.ok
    reason = report.failures[0].reason
    assert reason.startswith("hard labels, moderate prediction, shape (2, 3, 5, 3)")
    assert "expected 0." in reason
    assert "received 1." in reason
    assert "within" in reason
    assert "2 of 2 are off" in reason


def test_exception_of_an_implementation_is_a_failure() -> None:
    def broken(y: Any, p: Any) -> Any:
        raise TypeError("no NumPy, please")

    report = conformance.run(conformance.NumpyAdapter(broken), "CE")
    assert "raised TypeError: no NumPy, please" in report.failures[0].reason


def test_run_refuses_invalid_arguments() -> None:
    adapter = conformance.NumpyAdapter(numpy_dice)
    with pytest.raises(ValueError, match="loss: expected one of CE"):
        conformance.run(adapter, "Dice")
    with pytest.raises(ValueError, match=r"precision: .* float64, received 'float16'"):
        conformance.run(adapter, "DSC", precisions=["float16"])
    with pytest.raises(ValueError, match="check: expected one of values_agree"):
        conformance.run(adapter, "DSC", checks=["value"])
    with pytest.raises(ValueError, match=r"hyperparameter of DSC: .* received 'gamma'"):
        conformance.run(adapter, "DSC", gamma=2)


@pytest.fixture
def somebodys(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported by name."""
    module = types.ModuleType("somebodys_losses")
    vars(module).update(numpy_dice=numpy_dice, NumpyDice=NumpyDice, number=3)
    monkeypatch.setitem(sys.modules, "somebodys_losses", module)
    return "somebodys_losses"


def test_conformance_command(
    somebodys: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    usual = ["--loss", "DSC++", "--framework", "numpy", "--axis", "1"]
    epsilon = ["--set", "epsilon=1e-5", "--gamma", "1.5"]
    path = tmp_path / "report.json"
    for name in ("numpy_dice", "NumpyDice"):
        target = f"{somebodys}:{name}"
        assert command.main([target, *usual, *epsilon, "--json", str(path)]) == 0
        assert f"DSC++, epsilon=1e-05, gamma=1.5: {target} (numpy)" in (
            capsys.readouterr().out
        )
        report = json.loads(path.read_text())
        assert report["ok"]
        assert report["hyperparameters"] == {"epsilon": 1e-5, "gamma": 1.5}
        assert report["results"][0]["check"] == "values_agree"
        assert report["results"][0]["outcome"] == "pass"
    shifted = [*usual, *epsilon, "--set", "smooth=0.5", "--checks", "values_agree"]
    assert command.main([f"{somebodys}:NumpyDice", *shifted]) == 1
    assert "values_agree  float32  fail  hard labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["somebodys_losses"], "MODULE:CALLABLE and --loss"),
        (["somebodys_losses", "--loss", "DSC"], "MODULE:CALLABLE, such as"),
        (["nowhere:f", "--loss", "DSC"], "No module named 'nowhere'"),
        (["somebodys_losses:f", "--loss", "DSC"], "no attribute 'f'"),
        (["somebodys_losses:number", "--loss", "DSC"], "that can be called"),
        (["somebodys_losses:numpy_dice", "--loss", "Dice"], "invalid choice: 'Dice'"),
        (
            ["somebodys_losses:numpy_dice", "--loss", "CE", "--gamma", "2"],
            r"CE has no \+\+ exponent",
        ),
        (
            ["somebodys_losses:numpy_dice", "--loss", "DSC", "--set", "epsilon"],
            "expected NAME=VALUE, received 'epsilon'",
        ),
        (
            ["somebodys_losses:numpy_dice", "--loss", "DSC", "--set", "epsilon=a"],
            "epsilon: expected a number, received 'a'",
        ),
    ],
)
def test_conformance_command_refuses_invalid_arguments(
    somebodys: str,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_list_of_checks(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for check in conformance.CHECKS:
        assert f"- `{check.name}`: {check.description}\n" in listed
        assert check.description.endswith(".")
    page = (project / "docs" / "conformance.md").read_text()
    _, _, rest = page.partition("<!-- checks:begin -->\n")
    assert rest.partition("<!-- checks:end -->")[0] == listed


def test_the_suite_needs_numpy_alone(project: Path) -> None:
    program = """if True:
        import sys, conformance
        heavy = {"jax", "keras", "losses", "scipy", "tensorflow", "torch"}
        print(heavy & set(sys.modules))
    """
    assert _python(project, "-c", program).stdout.strip() == "set()"


def test_the_module_is_a_command(project: Path) -> None:
    done = _python(project, "-m", "conformance", "nowhere:f", "--loss", "CE")
    assert done.returncode == 2
    assert "python -m conformance: error: nowhere:f: No module" in done.stderr


def _python(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
