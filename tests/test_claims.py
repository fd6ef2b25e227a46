"""Claims of the paper's text decided on runs whose numbers can be worked out."""

import csv
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_runs import CASES, DSC_NLL, PLUS_NLL, make_run, one, read

from data_io.errors import InputError
from pipelines.measure import statistics
from pipelines.reporting import (
    claims,
    estimates,
    evidence,
    frame,
    pages,
    published,
    tables,
)
from pipelines.reporting.published import Variant

# Of four against four only a full separation is significant: z = 8 / sqrt(12),
# p = erfc(2.3094 / sqrt(2)).
SEPARATED = math.erfc(8 / math.sqrt(12) / math.sqrt(2))
DICE = (0.5, 0.6, 0.7, 0.8)
HEADER = (
    *("id", "fact", "section", "claim", "dataset", "rule", "metric", "a", "b"),
    *("sense", "value", "at_least", "reading"),
)


@pytest.fixture
def results(tmp_path, project):
    folder = tmp_path / "results"
    shutil.copytree(project / "results" / "paper", folder / "paper")
    return folder


def run(results, loss, dice=DICE, gamma=None, spread=0.001, **more):
    """Trainings whose Dice is given, and whose other measures may be.

    Two trainings, seeds 0 and 1, `spread` below and above in each case: of each loss
    the standard deviation over trainings is sqrt(2) spread. None: one training.
    """
    if loss.endswith("++"):
        gamma = gamma or 2.0
    given = more.pop("measures", {})
    for seed, by in enumerate((0.0,) if spread is None else (-spread, spread)):
        measures = {"dice": [one + by for one in dice], **given}
        seeded = {"seed": seed} | more
        make_run(results, loss, measures=measures, gamma=gamma, **seeded)
        if "seed" in more:
            break


def decided(results, rule, a, b="", **more):
    """The row of `results/claims.csv` for one claim on Dice, or as `more` says."""
    row = {"id": "x", "section": "3", "claim": "it is so", "rule": rule, "a": a, "b": b}
    row |= {"metric": "dice", "dataset": "DRIVE", "fact": "x"}
    return rows_of(results, [row | more])[0]


def rows_of(results, written):
    """The rows for these claims."""
    with (results / "paper" / "claims.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="")
        writer.writeheader()
        writer.writerows(written)
    paper = published.Paper(results / "paper")
    return claims.decide(paper, frame.studies(results)).to_dict("records")


def shifted(by):
    """Dice moved by these differences, so that the pairs differ by just them."""
    return [dice + more for dice, more in zip(DICE, by, strict=True)]


def test_differs_by_hand(results):
    run(results, "DSC", nll=DSC_NLL)
    run(results, "DSC++", nll=PLUS_NLL)
    row = decided(results, "differs", "DSC++", "DSC", metric="nll", sense="lower")
    assert (row["verdict"], row["preset"], row["seeds"]) == ("holds", "paper", 2)
    # Differences .06 .15 .37 .42: mean .25.
    assert row["difference"] == pytest.approx(-0.25)
    assert row["p_rank_sum"] == pytest.approx(SEPARATED)
    # Both trainings are the same: the error over cases alone, three degrees of
    # freedom. Of the log of the ratio: a / .05 - b / .3, one value a case.
    parts = np.array(PLUS_NLL) / 0.05 - np.array(DSC_NLL) / 0.3
    z = math.log(0.05 / 0.3) / (parts.std(ddof=1) / 2)
    assert row["p_seeds"] == pytest.approx(2 * stats.t.cdf(z, 3))
    # Against a ratio of .9 to 1.11.
    z = (math.log(0.05 / 0.3) - math.log(0.9)) / (parts.std(ddof=1) / 2)
    assert row["p_same"] == pytest.approx(stats.t.sf(z, 3))
    assert row["paper"] == "DRIVE nll: DSC++ 0.041, DSC 0.204, p = 6e-08"
    assert row["ours"] == "DRIVE nll: DSC++ 0.05, DSC 0.3"
    assert row["paper_tables"] == "holds"
    # The other way round the same tests refute it.
    row = decided(results, "differs", "DSC++", "DSC", metric="nll", sense="higher")
    assert (row["verdict"], row["paper_tables"]) == ("fails", "fails")


@pytest.mark.parametrize(
    ("by", "spread", "verdict"),
    [
        # Over seeds a difference (s = .0014), and by the ranks of four images too.
        ((0.401,) * 4, 0.001, "holds"),
        # Over seeds alone: the rank-sum test decides nothing.
        ((0.03,) * 4, 0.001, "holds"),
        # Ranks that differ, but seeds that differ as much: s = .4.
        ((0.401,) * 4, 0.3, "undecided"),
        # The other direction over seeds.
        ((-0.03,) * 4, 0.001, "fails"),
        # Inside +-.01 for sure, and no difference is seen.
        ((0.0005,) * 4, 0.001, "fails"),
        # Neither shown nor refuted: lack of evidence is no failure.
        ((0.001,) * 4, 0.02, "undecided"),
    ],
)
def test_differs_is_shown_refuted_or_undecided(results, by, spread, verdict):
    run(results, "DSC", DICE, spread=spread)
    run(results, "DSC++", shifted(by), spread=spread)
    row = decided(results, "differs", "DSC++", "DSC", sense="higher")
    assert row["verdict"] == verdict


def test_one_training_each_decides_nothing(results):
    run(results, "DSC", nll=DSC_NLL, spread=None)
    run(results, "DSC++", nll=PLUS_NLL, spread=None)
    for rule in ("differs", "ahead", "no difference"):
        row = decided(results, rule, "DSC++", "DSC", metric="nll", sense="lower")
        assert row["verdict"] == "undecided"
        assert "(no interval: no loss has two seeds)" in row["why"]
        assert math.isnan(row["p_seeds"]) and row["p_rank_sum"] < 0.05
    # Another loss with two seeds says what seeds differ by.
    run(results, "CE", nll=DSC_NLL)
    row = decided(results, "differs", "DSC++", "DSC", metric="nll", sense="lower")
    assert (row["verdict"], row["seeds"]) == ("holds", 1)


@pytest.mark.parametrize(
    ("by", "spread", "no_difference", "steady"),
    [
        ((0.0002,) * 4, 0.0005, "holds", "holds"),
        # A difference is seen, inside the margin: not none, and no change to speak of.
        ((0.005,) * 4, 0.0005, "undecided", "holds"),
        # s = .0028 over two trainings each, t(2): .0085 +- .0122 reaches beyond.
        ((0.0085,) * 4, 0.002, "undecided", "undecided"),
        # For sure different, and for sure more than .01.
        ((0.03,) * 4, 0.0005, "fails", "fails"),
        # For sure different, but not for sure more than .01.
        ((0.0115,) * 4, 0.001, "fails", "undecided"),
        # Equal means, but no certainty: undecided, not held.
        ((0.1, -0.1, 0.1, -0.1), 0.001, "undecided", "undecided"),
    ],
)
def test_sameness_is_tested(results, by, spread, no_difference, steady):
    run(results, "DSC", DICE, spread=spread)
    run(results, "DSC++", shifted(by), spread=spread)
    row = decided(results, "no difference", "DSC++", "DSC")
    assert row["p_rank_sum"] > 0.05
    assert row["verdict"] == no_difference
    assert decided(results, "steady", "DSC++", "DSC")["verdict"] == steady


def test_significant_difference_inside_the_margin(results):
    run(results, "DSC", (0.500, 0.501, 0.502, 0.503), spread=0.0001)
    run(results, "DSC++", (0.505, 0.506, 0.507, 0.508), spread=0.0001)
    row = decided(results, "no difference", "DSC++", "DSC")
    assert row["p_rank_sum"] == pytest.approx(SEPARATED)
    # Inside the margin, but there is a difference: the claim is about having none.
    assert row["p_same"] < 0.05 and row["p_seeds"] < 0.05
    assert row["verdict"] == "undecided"
    # Where no test is claimed, five thousandths are no change.
    assert decided(results, "steady", "DSC++", "DSC")["verdict"] == "holds"


def test_many_pairs_are_corrected_for_their_number(results):
    # s = .02 for two trainings each, so of one pair a difference of .08 has p = .016
    # by four degrees of freedom (t = 4); with three of CE, DSC, Focal it is times 3.
    run(results, "DSC", DICE, spread=0.02 / math.sqrt(2))
    run(results, "DSC++", shifted((0.08,) * 4), spread=0.02 / math.sqrt(2))
    alone = decided(results, "no difference", "DSC++; DSC")
    p = 2 * stats.t.sf(4, 2)
    assert alone["p_seeds"] == pytest.approx(p)
    run(results, "CE", shifted((0.04,) * 4), spread=0.02 / math.sqrt(2))
    row = decided(results, "no difference", "DSC; DSC++; CE")
    p = 2 * stats.t.sf([4, 2, 2], 3)
    expected = statistics.holm(p)
    assert row["parts"] == 1
    assert row["p_holm"] in [pytest.approx(one) for one in expected]
    assert expected[0] == pytest.approx(3 * p[0]) and p[0] < 0.05 < 3 * p[0]
    assert row["verdict"] == "undecided"


def test_one_case_decides_no_sameness(results):
    nan = float("nan")
    run(results, "DSC", (0.5, nan, nan, nan))
    run(results, "DSC++", (0.5, 0.6, nan, nan))
    for rule in ("steady", "differs"):
        row = decided(results, rule, "DSC++", "DSC", sense="higher")
        assert row["verdict"] == "undecided"
        assert row["why"] == "DSC++ against DSC: 1 cases are defined for both"


def test_not_worse_is_less_than_the_margin(results):
    said = {"b": "DSC", "sense": "higher"}
    run(results, "DSC", DICE, spread=0.0005)
    run(results, "DSC++", shifted((-0.005,) * 4), spread=0.0005)
    run(results, "CE", shifted((-0.02,) * 4), spread=0.0005)
    run(results, "Focal", shifted((-0.0098,) * 4), spread=0.0005)
    run(results, "Combo", shifted((0.3, -0.3, 0.3, -0.3)), spread=0.0005)
    found = {
        loss: decided(results, "not worse", loss, **said)["verdict"]
        for loss in ("DSC++", "CE", "Focal", "Combo")
    }
    # Focal is behind for sure, and not for sure by less than .01.
    assert found == {
        "DSC++": "holds", "CE": "fails", "Focal": "fails", "Combo": "undecided",
    }  # fmt: skip


def test_order_is_tested_over_trainings(results):
    run(results, "DSC", DICE)
    run(results, "DSC++", shifted((0.02,) * 4))
    run(results, "CE", shifted((0.001,) * 4))
    said = {"b": "DSC", "sense": "higher"}
    assert decided(results, "ahead", "DSC++", **said)["verdict"] == "holds"
    row = decided(results, "ahead", "CE", **said)
    assert row["verdict"] == "undecided"
    # s = .001414 pooled over three losses of two trainings: .001 in units of s.
    assert row["p_seeds"] == pytest.approx(2 * stats.t.sf(1 / math.sqrt(2), 3))
    row = decided(results, "ahead", "DSC++", b="DSC", sense="lower")
    assert row["verdict"] == "fails"


def test_best_of_several(results):
    run(results, "DSC++", shifted((0.02,) * 4))
    run(results, "CE", shifted((0.01,) * 4))
    run(results, "Focal", shifted((0.03,) * 4))
    said = {"a": "DSC++", "sense": "higher"}
    row = decided(results, "best", b="CE; DSC", **said)
    # DSC was not run and might be higher.
    assert row["verdict"] == "undecided"
    assert row["why"].startswith("DSC++ against CE: difference +0.0100")
    assert row["why"].endswith("; not run: DSC")
    run(results, "DSC", DICE)
    assert decided(results, "best", b="CE; DSC", **said)["verdict"] == "holds"
    row = decided(results, "best", b="CE; DSC; Focal", **said)
    assert (row["verdict"], row["b"]) == ("fails", "Focal")
    # One higher than it is enough, whatever else was not run.
    assert decided(results, "best", b="Tversky; Focal", **said)["verdict"] == "fails"
    # Alone it is not the highest of anything.
    assert decided(results, "best", b="Tversky", **said)["verdict"] == "not run"
    assert decided(results, "best", a="Combo", b="CE", sense="lower")["why"] == (
        "not run: Combo"
    )


def test_all_of_several_are_best(results):
    run(results, "DSC++", shifted((0.02,) * 4))
    run(results, "DSC++", shifted((0.04,) * 4), gamma=2.5)
    run(results, "DSC++", shifted((0.03,) * 4), gamma=3.0)
    said = {"a": "DSC++; DSC++ g=2.5", "b": "DSC++ g=3", "sense": "higher"}
    row = decided(results, "best", **said)
    assert (row["verdict"], row["a"], row["b"]) == ("fails", "DSC++", "DSC++ g=3")
    assert decided(results, "one best", **said)["verdict"] == "holds"


def test_p_of_several_pairs_by_hand(results):
    """Differences of 3.6 errors, three degrees of freedom: p is .037 for each pair."""
    spread = 0.02 / math.sqrt(2)
    p = 2 * stats.t.sf(3.6, 3)
    assert p < 0.05 < 2 * p
    for loss, by in (("DSC++", 0.072), ("CE", 0.0), ("DSC", 0.0)):
        run(results, loss, shifted((by,) * 4), spread=spread)
    # All have to pass: no correction. One that fails is enough: Holm's.
    said = {"a": "DSC++", "b": "CE; DSC", "sense": "higher"}
    row = decided(results, "best", **said)
    assert (row["verdict"], row["p_holds"]) == ("holds", pytest.approx(p))
    assert row["p_holm"] == pytest.approx(2 * p)
    row = decided(results, "best", **said | {"sense": "lower"})
    assert (row["verdict"], row["p_fails"]) == ("undecided", pytest.approx(2 * p))
    # Which one of a is best is chosen from the data: times their number.
    said = {"a": "DSC++; CE", "b": "DSC", "sense": "higher"}
    row = decided(results, "one best", **said)
    assert (row["verdict"], row["p_holds"]) == ("undecided", pytest.approx(2 * p))
    # Of two parts one has to hold, whichever: again twice; both have to: once.
    row = decided(results, "ahead", at_least="1", **said)
    assert (row["verdict"], row["p_holds"]) == ("undecided", pytest.approx(2 * p))
    row = decided(results, "ahead", a="DSC++", b="CE; DSC", sense="higher")
    assert (row["verdict"], row["p_holds"]) == ("holds", pytest.approx(p))


def test_one_best_needs_every_candidate(results):
    run(results, "CE", shifted((0.01,) * 4))
    run(results, "DSC", DICE)
    said = {"a": "CE; Focal", "b": "DSC", "sense": "lower"}
    # Focal might be lower still than DSC.
    assert decided(results, "one best", **said)["verdict"] == "undecided"
    run(results, "Focal", shifted((0.02,) * 4))
    assert decided(results, "one best", **said)["verdict"] == "fails"
    assert decided(results, "one best", a="Combo", b="DSC", sense="lower")[
        "verdict"
    ] == ("not run")


def test_trend_over_gamma(results):
    for gamma, by in ((0.5, 0.03), (2.0, 0.029), (2.5, 0.01)):
        run(results, "DSC++", shifted((by,) * 4), gamma=gamma)
    gammas = "DSC++ g=0.5; DSC++ g=1; DSC++; DSC++ g=2.5"
    row = decided(results, "trend", gammas, sense="lower")
    assert row["verdict"] == "undecided" and row["why"].endswith("not run: DSC++ g=1")
    # Gamma 1 is the plain loss: a hair above the one before is no step, .01 is one.
    run(results, "DSC", shifted((0.0304,) * 4))
    assert decided(results, "trend", gammas, sense="lower")["verdict"] == "holds"
    for seed in (0, 1):
        shutil.rmtree(results / "drive" / "paper" / "runs" / f"dsc-s{seed}")
    run(results, "DSC", shifted((0.05,) * 4))
    row = decided(results, "trend", gammas, sense="lower")
    assert (row["verdict"], row["a"], row["b"]) == ("fails", "DSC++ g=1", "DSC++ g=0.5")
    assert decided(results, "trend", "DSC++; Combo", sense="lower")["verdict"] == (
        "not run"
    )


def test_no_change_is_no_trend(results):
    run(results, "DSC++", DICE, gamma=2.0)
    run(results, "DSC++", DICE, gamma=2.5)
    row = decided(results, "trend", "DSC++; DSC++ g=2.5", sense="higher")
    assert row["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        # Mean .65; s = sqrt(2) .02, one degree of freedom, two trainings:
        # 12.706 x .028284 x sqrt(1.5) + .0005 = .4406.
        ("0.21", "holds"),
        ("1.09", "holds"),
        ("0.209", "fails"),
        ("1.091", "fails"),
    ],
)
def test_printed_figure(results, value, verdict):
    run(results, "DSC", spread=0.02)
    said = {"a": "DSC", "value": value}
    assert decided(results, "figure", **said)["verdict"] == verdict
    assert decided(results, "figure", **said)["paper"] == f"{float(value):g}"


def test_printed_figure_on_another_preset_or_not_run(results):
    run(results, "DSC", preset="reduced")
    row = decided(results, "figure", "DSC", value="0.65")
    assert (row["verdict"], row["preset"]) == ("undecided", "reduced")
    assert decided(results, "figure", "CE", value="0.65")["verdict"] == "not run"
    run(results, "DSC", spread=None)
    row = decided(results, "figure", "DSC", value="0.65")
    assert row["verdict"] == "undecided"
    assert row["why"].endswith("no loss has two seeds")


def test_claims_by_eye_and_cited_claims_are_never_decided(results):
    run(results, "DSC")
    row = decided(results, "by eye", "DSC", metric="")
    assert (row["verdict"], row["preset"]) == ("undecided", "")
    away = decided(results, "by eye", "DSC", metric="", dataset="KiTS19")
    assert away["verdict"] == "not run"
    for title in ("DRIVE", "KiTS19"):
        row = decided(results, "cited", "DSC", dataset=title)
        assert (row["verdict"], row["paper_tables"]) == ("cited, not tested", "")


def test_thresholds_of_the_same_trainings(results):
    # At .2 recall is 1 and precision 4/6, at .8 both are 3/4, in every case.
    run(results, "DSC++")
    said = {"a": "DSC++@0.2", "b": "DSC++@0.8", "sense": "higher"}
    row = decided(results, "differs", metric="recall", **said)
    assert (row["verdict"], row["difference"]) == ("holds", 0.25)
    assert row["p_rank_sum"] == pytest.approx(SEPARATED)
    row = decided(results, "differs", metric="recall; precision", **said)
    assert (row["verdict"], row["parts_hold"], row["parts_fail"]) == ("fails", 1, 1)
    assert row["difference"] == pytest.approx(4 / 6 - 3 / 4)
    # The difference of the other figure: 2 x 4 / (2 x 4 + 2) against 6 / 8.
    row = decided(results, "steady", "DSC++@0.2", "DSC++@0.8")
    assert (row["verdict"], row["difference"]) == ("fails", pytest.approx(0.05))


def test_result_that_holds_for_other_losses_names_them(results):
    run(results, "DSC++")
    run(results, "DSC")
    run(results, "CE", shift=(1, 1, 1, 1))
    said = {"a": "DSC++@0.2", "b": "DSC++@0.8", "sense": "higher"}
    row = decided(results, "ahead", metric="recall", **said)
    assert (row["verdict"], row["other_losses"]) == ("holds", "CE; DSC")
    # A claim on several losses, or at no threshold, is not about one loss.
    row = decided(results, "ahead", "DSC++", "DSC", sense="higher")
    assert row["other_losses"] == ""


def test_share_of_extreme_softmax_values(results):
    # Voxels at .1, .3, .85 and, with `shift`, at .97: of 10 + n the n are extreme.
    run(results, "DSC", shift=(2, 2, 2, 2))
    run(results, "DSC++", shift=(0, 0, 0, 0))
    row = decided(results, "ahead", "DSC", "DSC++", metric="extremes", sense="higher")
    assert (row["verdict"], row["difference"]) == ("holds", pytest.approx(2 / 12))
    assert row["verdict_corrected"] == row["paper"] == row["paper_tables"] == ""


def test_verdict_by_the_corrected_nll_is_shown_too(results):
    run(results, "DSC", nll=DSC_NLL, measures={"nll": PLUS_NLL})
    run(results, "DSC++", nll=PLUS_NLL, measures={"nll": DSC_NLL})
    row = decided(results, "differs", "DSC++", "DSC", metric="nll", sense="lower")
    assert (row["verdict"], row["verdict_corrected"]) == ("holds", "fails")
    row = decided(results, "steady", "DSC++", "DSC")
    assert row["verdict_corrected"] == ""


def test_a_reduced_network_refutes_nothing(results):
    run(results, "DSC", nll=DSC_NLL, preset="reduced")
    run(results, "DSC++", nll=PLUS_NLL, preset="reduced")
    said = {"a": "DSC++", "b": "DSC", "metric": "nll"}
    found = [
        decided(results, "differs", sense=sense, **said)
        for sense in ("lower", "higher")
    ]
    words = ["seen at reduced", "not seen at reduced"]
    assert [row["verdict"] for row in found] == words
    # The corrected NLL is the same for both: for sure, and no test finds anything.
    assert {row["verdict_corrected"] for row in found} == {"not seen at reduced"}


def test_presets_never_mix(results):
    run(results, "DSC", DICE)
    run(results, "DSC", DICE, preset="reduced")
    run(results, "CE", shifted((0.01,) * 4), preset="reduced")
    row = decided(results, "ahead", "CE", "DSC", sense="higher")
    assert (row["verdict"], row["preset"]) == ("seen at reduced", "reduced")
    # Once both were run as the paper did, that decides.
    run(results, "CE", shifted((-0.01,) * 4))
    row = decided(results, "ahead", "CE", "DSC", sense="higher")
    assert (row["verdict"], row["preset"]) == ("fails", "paper")


def test_simulated_images_decide_nothing(results):
    run(results, "DSC", nll=DSC_NLL, simulated=True)
    run(results, "DSC++", nll=PLUS_NLL, simulated=True)
    row = decided(results, "differs", "DSC++", "DSC", metric="nll", sense="lower")
    assert (row["verdict"], row["why"]) == ("not run", "not run: all on DRIVE")


def test_scaled_run_does_not_stand_in_for_the_loss(results):
    run(results, "DSC++", shifted((0.01,) * 4))
    run(results, "DSC", DICE, method="temperature")
    row = decided(results, "ahead", "DSC++", "DSC", sense="higher")
    assert (row["verdict"], row["why"]) == ("not run", "not run: DSC")


def test_seeds_are_averaged(results):
    for seed in (0, 1):
        run(results, "DSC", DICE, seed=seed)
    run(results, "DSC++", shifted((0.02,) * 4), seed=0)
    run(results, "DSC++", shifted((-0.01,) * 4), seed=1)
    row = decided(results, "steady", "DSC++", "DSC")
    assert row["difference"] == pytest.approx(0.005)
    # The seeds differ by 0.03, so SE over seeds is 0.015: beyond the margin.
    assert (row["verdict"], row["seeds"], row["n"]) == ("undecided", 2, len(CASES))


@pytest.mark.parametrize(
    ("holding", "failing", "at_least", "verdict"),
    [
        (2, 0, "", "undecided"),
        (3, 0, "", "holds"),
        (0, 1, "", "fails"),
        (2, 1, "2", "holds"),
        (1, 1, "2", "undecided"),
        (1, 2, "2", "fails"),
        (0, 0, "2", "not run"),
    ],
)
def test_required_number_of_parts_must_hold(
    results, holding, failing, at_least, verdict
):
    """How many of the parts have to hold, here of three."""
    run(results, "DSC", DICE)
    losses = ("CE", "Focal", "Tversky")
    for i, loss in enumerate(losses[: holding + failing]):
        run(results, loss, shifted((0.03 if i < holding else -0.03,) * 4))
    said = {"a": "; ".join(losses), "b": "DSC", "sense": "higher"}
    row = decided(results, "ahead", at_least=at_least, **said)
    assert row["verdict"] == verdict
    assert (row["parts"], row["parts_hold"], row["parts_fail"]) == (3, holding, failing)
    assert row["parts_not_run"] == 3 - holding - failing


def test_lists_of_losses_are_compared_in_pairs(results):
    run(results, "Tversky", DICE)
    run(results, "Tversky++", shifted((0.01,) * 4))
    run(results, "Combo", shifted((0.02,) * 4))
    run(results, "Combo++", shifted((0.03,) * 4))
    said = {"a": "Tversky++; Combo++", "b": "Tversky; Combo", "sense": "higher"}
    # One by one both are ahead; Tversky++ is not ahead of Combo.
    row = decided(results, "ahead", **said)
    assert (row["verdict"], row["parts"]) == ("holds", 2)
    # A list alone stands for all its pairs, of which the furthest apart is shown.
    row = decided(results, "no difference", "Tversky; Tversky++; Combo; Combo++")
    assert (row["parts"], row["a"], row["b"]) == (1, "Tversky", "Combo++")


def test_claim_on_two_classes(results):
    shared = {"dataset": "kits19", "title": "KiTS19"}
    targets = ("kidney", "kidney tumour")
    run(results, "CE", DICE, targets=targets, **shared)
    run(results, "DSC++", shifted((0.01,) * 4), targets=targets, **shared)
    said = {"a": "DSC++", "b": "CE", "sense": "higher"}
    row = decided(results, "ahead", dataset="KiTS19 (kidney tumour)", **said)
    assert row["verdict"] == "holds"
    printed = "KiTS19 (kidney tumour) dice: DSC++ 0.429, CE 0.188, p = 4e-07"
    assert row["paper"] == printed


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"rule": "surely"}, "expected a rule"),
        ({"metric": "charm"}, "charm"),
        ({"a": "DSC++@0.33"}, "thresholds 0.05 to 0.95"),
        ({"sense": "other"}, "expected lower or higher"),
        ({"a": "DSC; CE", "b": "DSC; CE; Focal"}, "found 2 and 3"),
        ({"a": "", "b": ""}, "expected something to compare"),
        ({"value": "much"}, "could not convert"),
        ({"at_least": "most"}, "invalid literal"),
    ],
)
def test_a_claim_that_cannot_be_read_is_named(results, row, message):
    run(results, "DSC")
    row = {"rule": "ahead", "a": "DSC", "b": "CE", "sense": "lower"} | row
    with pytest.raises(InputError, match=message):
        decided(results, **row)


def test_every_claim_of_the_paper_can_be_decided(project):
    found = published.read_rows(project / "results" / "paper" / "claims.csv", HEADER)
    assert len({row["id"] for row in found}) == len(found) > 30
    paper = published.Paper(project / "results" / "paper")
    parsed = claims.published_claims(paper)
    cells = list(published.each_cell(paper.cells))
    known = {cell.variant for cell in cells}
    titles = {(cell.dataset, cell.target) for cell in cells}
    for claim in parsed:
        assert 0 < claim.at_least <= len(claim.parts), claim.row["id"]
        for part in claim.parts:
            # A loss or data set that the paper has no cell for is a slip of the pen.
            shown = {replace(one, threshold=None) for one in part.quantities}
            assert shown <= known, claim.row["id"]
            assert (part.dataset, part.target) in titles, claim.row["id"]
    sections = {row["section"] for row in found}
    assert sections == {"1", "3.1", "3.2.1", "3.2.2", "3.3", "3.4", "4"}


def test_every_printed_p_value_is_a_claim(results):
    run(results, "CE")
    pages.Report(results).write()
    rows = read(results / "claims.csv")
    for printed in published.Paper(results / "paper").p_values:
        number = printed["source"].removeprefix("section ")
        binary = printed["dataset"] != "KiTS19"
        target = "" if binary else f" ({printed['target']})"
        found = [
            row
            for row in rows
            if row["section"] == number
            and row["dataset"] == printed["dataset"] + target
            and row["metric"] == printed["metric"]
            and row["paper"].endswith(f", p = {printed['p']}")
            and f"{printed['loss_b']} " in row["paper"]
        ]
        assert len(found) == 1, printed


def test_claims_that_the_papers_own_tables_contradict(results):
    run(results, "CE")
    pages.Report(results).write()
    rows = read(results / "claims.csv")
    # Focal is lowest in Dice on DRIVE, BUS2017 and 2018DSB alone: three, not four.
    assert one(rows, id="3.2.1-focal-lowest-dice")["paper_tables"] == "fails"
    # NLL .038 .038 .035 .038 .039 .041 from gamma 2.5 to 5.
    assert one(rows, id="3.1-nll-increases")["paper_tables"] == "fails"
    # .808 +- .003 and .794 +- .004 lie 2.8 standard errors apart.
    assert one(rows, id="3.1-dice-same")["paper_tables"] == "fails"
    # CE-based is Focal too, whose Brier is .036 on DRIVE: that of DSC is .031.
    assert one(rows, id="3.2.1-ce-calibrated")["paper_tables"] == "fails"
    assert one(rows, id="3.2.1-dice-highest")["paper_tables"] == "holds"
    assert one(rows, id="3.1-brier-increases")["paper_tables"] == "holds"


@pytest.mark.slow
def test_claims_csv_is_reproducible_and_has_no_nan(results):
    run(results, "DSC", nll=DSC_NLL)
    run(results, "DSC++", nll=PLUS_NLL)
    pages.Report(results).write()
    first = (results / "claims.csv").read_bytes()
    estimates.over_cases.cache_clear()
    pages.Report(results).write()
    assert (results / "claims.csv").read_bytes() == first
    rows = read(results / "claims.csv")
    assert tuple(rows[0]) == tables.COLUMNS["claims"]
    assert {row["verdict"] for row in rows} == {
        "holds",
        "fails",
        "undecided",
        "not run",
        "cited, not tested",
    }
    for row in rows:
        for name in ("difference", "ci_low", "ci_high", "p_rank_sum", "p_same"):
            assert row[name] == "" or row[name] == f"{float(row[name]):.6g}"


@pytest.mark.slow
def test_summary_counts_every_fact_cell_and_comparison_once(results):
    run(results, "DSC", nll=DSC_NLL)
    run(results, "DSC++", nll=PLUS_NLL)
    pages.Report(results).write()
    counts = read(results / "counts.csv")
    rows = read(results / "claims.csv")
    for verdict in ("holds", "fails", "undecided", "not run"):
        for section in {row["section"] for row in rows}:
            said = one(counts, group=f"section {section}", verdict=verdict)
            own = [row for row in rows if row["section"] == section]
            own = [row for row in own if row["fact"] == row["id"]]
            assert int(said["count"]) == sum(row["verdict"] == verdict for row in own)
    cells = [row for row in counts if row["kind"] == "cells" and row["group"] != "all"]
    assert sum(int(row["count"]) for row in cells) == 184
    # DSC and DSC++ on DRIVE stand in Table 3 (as gamma 1 and 2) and in Table 4, on
    # both sides: four cells a metric with a direction, one comparison.
    found = read(results / "table3.csv") + read(results / "table4.csv")
    directed = [row for row in found if row["direction"]]
    assert {row["metric"] for row in directed} == {"nll_published", "brier_published"}
    assert len(directed) == 2 * 4
    same = one(counts, kind="comparisons", group="all", verdict="same")
    opposite = one(counts, kind="comparisons", group="all", verdict="opposite")
    assert int(same["count"]) + int(opposite["count"]) == 2
    facts = {row["id"] for row in rows if row["fact"] == row["id"]}
    assert all(set(row["fact"].split("; ")) <= facts for row in rows)
    shown = pages.Report(results).counts().splitlines()
    assert shown[0].startswith("Published cells (184): within ")
    assert shown[2].startswith(f"Facts claimed ({len(facts)}): holds ")


@pytest.mark.slow
def test_summary_in_the_readme(results, tmp_path):
    run(results, "DSC", nll=DSC_NLL, preset="reduced")
    run(results, "DSC++", shifted((0.01,) * 4), nll=PLUS_NLL, preset="reduced")
    pages.Report(results).write()
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- claims:begin -->\n<!-- claims:end -->\nb\n")
    assert pages.Report(results).update(readme) == ["claims"]
    content = readme.read_text()
    named = dict(
        line.removeprefix("- ").split(" (", 1)
        for line in content.splitlines()
        if line.startswith("- ") and "`" in line
    )
    # The proper NLL is the same for both here: what held by the published one fails.
    other = named["Different verdict by the NLL and Brier score of both terms"]
    assert "`3.1-nll-gamma-2`" in other
    # Each claim that fails is there with its reason, and no other.
    with (results / "claims.csv").open(newline="") as file:
        words = "not seen at reduced"
        fails = [row for row in csv.DictReader(file) if row["verdict"] == words]
    listed = [line for line in content.splitlines() if line.startswith("  - `")]
    assert fails
    assert len(listed) == len(fails)
    for line, row in zip(listed, fails, strict=True):
        assert line.startswith(
            f"  - `{row['id']}` (2 seeds): {row['why'].split('; not run:')[0]}"
        )
    assert not any("`3.1-nll-gamma-2`" in line for line in listed)
    said = named["Not supported by the paper's own printed means and errors"]
    assert "`3.2.1-focal-lowest-dice`" in said and "`3.1-brier-lowest`" not in said
    # How many may be false: of each fact that was tested, and of no other.
    with (results / "claims.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fact"] == row["id"]]
    tested = sum(row["p_holds"] != "" for row in rows)
    assert f"- {tested} facts were tested, each at 0.05, not corrected" in content
    assert f"up to {0.05 * tested:.1f} would hold by chance" in content
    # From the runs themselves: what was written before does not matter.
    (results / "claims.csv").write_text("id\n1\n")
    (results / "counts.csv").unlink()
    pages.Report(results).update(readme)
    assert readme.read_text() == content


def test_pair_uses_only_shared_seeds(results):
    # Seed 1 alone is shared: 0.5, 0.6, 0.7, 0.8 less 0.1, 0.1, 0.2, 0.2.
    for seed, shift in ((0, 5.0), (1, 0.0)):
        make_run(results, "DSC", np.array((0.5, 0.6, 0.7, 0.8)) + shift, seed=seed)
    for seed, shift in ((1, 0.0), (2, 9.0)):
        nll = np.array((0.1, 0.1, 0.2, 0.2)) + shift
        make_run(results, "DSC++", nll, gamma=2.0, seed=seed)
    joined = frame.open_study(results / "drive" / "paper")
    plain, plus = Variant.parse("DSC"), Variant.parse("DSC++")
    pair = evidence.Runs(joined).pair(plain, plus, "nll")
    assert (pair.seeds, pair.difference.n) == (1, 4)
    assert pair.difference.mean == pytest.approx(0.5)
    row = next(
        row
        for row in tables.comparisons(joined).to_dict("records")
        if (row["metric"], row["test"]) == ("nll_published", "rank_sum")
    )
    # Every value of DSC is above every one of DSC++: U at its end.
    assert abs(row["statistic"]) == pytest.approx(2.309, abs=1e-3)


def test_the_interval_of_a_pair_has_the_spread_over_seeds(results):
    # All cases differ by 0.1 with seed 0 and by 0.3 with seed 1: over cases alone the
    # interval has no width. DSC has mean .65 twice, DSC++ .55 and .35: s is .02 / .45^2
    # over two degrees of freedom, relative to the mean.
    for seed, gap in ((0, 0.1), (1, 0.3)):
        make_run(results, "DSC", (0.5, 0.6, 0.7, 0.8), seed=seed)
        nll = np.array((0.5, 0.6, 0.7, 0.8)) - gap
        make_run(results, "DSC++", nll, gamma=2.0, seed=seed)
    joined = frame.open_study(results / "drive" / "paper")
    pair = evidence.Runs(joined).pair(*map(Variant.parse, ("DSC", "DSC++")), "nll")
    difference = pair.difference
    assert difference.mean == pytest.approx(0.2)
    s = math.sqrt(0.02 / 0.45**2 / 2)
    reach = 4.302653 * s * math.hypot(0.65, 0.45) / math.sqrt(2)
    ends = (0.2 - reach, 0.2 + reach)
    assert (difference.ci_low, difference.ci_high) == pytest.approx(ends)


@pytest.mark.parametrize(
    ("name", "column", "cell", "read"),
    [
        ("thresholds", "value", "", "thresholds"),
        ("thresholds", "metric", "preci", "thresholds"),
        ("thresholds", "threshold", "0.83", "thresholds"),
        ("pvalues", "p", "", "p_values"),
        ("pvalues", "p", "6e-", "p_values"),
        ("pvalues", "metric", "nl", "p_values"),
        ("table4", "value", "0.9.1", "cells"),
    ],
)
def test_damaged_published_values_are_refused_by_line(
    tmp_path, project, name, column, cell, read
):
    """The message names the file and the line, and no other file."""
    shutil.copytree(project / "results" / "paper", tmp_path / "paper")
    path = tmp_path / "paper" / f"{name}.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[1, column] = cell
    rows.to_csv(path, index=False)
    match = rf"{name}\.csv: expected published values.*\(line 3: .*{cell}"
    with pytest.raises(InputError, match=match) as caught:
        getattr(published.Paper(tmp_path / "paper"), read)
    assert "claims.csv" not in str(caught.value)
