"""The answer on one page, and the forest plot: figures by hand, verdicts as given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from written_runs import DSC_NLL, PLUS_NLL, make_run

from pipelines.reporting import answers, claims, frame
from pipelines.reporting.evidence import Runs, method_spread
from pipelines.reporting.figures import style
from pipelines.reporting.figures.curves import forest
from pipelines.reporting.markdown import interval
from pipelines.reporting.published import Paper, Variant, paper_folder

SCALED = {"method": "temperature", "posthoc": {"temperature": 2.5}}


@pytest.fixture
def results(tmp_path):
    """DSC has NLL .3 and .6, DSC++ .05 and .06: ratios 1/6 and 1/10."""
    results = tmp_path / "results"
    make_run(results, "DSC", DSC_NLL, gamma=1.0)
    make_run(results, "DSC", (0.6,) * 4, gamma=1.0, seed=1)
    make_run(results, "DSC++", PLUS_NLL, gamma=2.0)
    make_run(results, "DSC++", (0.06,) * 4, gamma=2.0, seed=1)
    return results


def opened(results):
    return Paper(paper_folder(results)), frame.studies(results)


def summary(results, said=None):
    paper, studies = opened(results)
    said = claims.decide(paper, studies) if said is None else said
    return answers.summary(paper, studies, said)


def line(found, comparison):
    (row,) = found[found["comparison"] == comparison].to_dict("records")
    return row


def test_ratio_by_hand_with_the_interval_of_the_verdicts(results):
    row = line(summary(results), "NLL: DSC++ / DSC")
    assert row["ours"] == pytest.approx((0.05 + 0.06) / (0.3 + 0.6))
    # The interval is that of the verdicts: see test_a_contrast_by_hand.
    _, (study,) = opened(results)
    sides = (Variant.parse("DSC++"), Variant.parse("DSC"))
    effect = Runs(study).pair(*sides, "nll").effect
    assert (row["ci_low"], row["ci_high"]) == (effect.ci_low, effect.ci_high)
    assert effect.ci_low < row["ours"] < effect.ci_high
    # Table 4: .041 and .204. The NLL of both terms is the same in all of these runs.
    assert row["paper"] == pytest.approx(0.041 / 0.204)
    assert (row["proper"], row["seeds"], row["preset"]) == (1.0, 2, "paper")


def test_seed_that_only_one_loss_has_is_left_out(results):
    make_run(results, "DSC++", (9.0,) * 4, gamma=2.0, seed=7)
    make_run(results, "CE", (0.1,) * 4)
    found = summary(results)
    assert line(found, "NLL: DSC++ / DSC")["seeds"] == 2
    row = line(found, "NLL: DSC / CE")
    assert (row["seeds"], row["ours"]) == (1, pytest.approx(3.0))
    # What seeds differ by is known from the losses with two of them.
    assert 0 < row["ci_low"] < 3 < row["ci_high"]


def test_no_interval_where_no_loss_was_trained_twice(tmp_path):
    make_run(tmp_path, "DSC", DSC_NLL)
    make_run(tmp_path, "DSC++", PLUS_NLL)
    row = line(summary(tmp_path), "NLL: DSC++ / DSC")
    assert math.isnan(row["ci_low"]) and math.isnan(row["ci_high"])


def test_thresholds_and_dice_by_hand(results):
    found = summary(results)
    # Of the four voxels of the target p is .3, .85, .85, .85 in every case.
    row = line(found, "recall: DSC at threshold 0.2 - DSC at threshold 0.8")
    assert (row["ours"], row["claim"]) == (0.25, "3.4-dsc-steady")
    assert math.isnan(row["paper"])
    row = line(found, "Dice: DSC++ at threshold 0.2 - DSC++ at threshold 0.5")
    assert row["paper"] == pytest.approx(0.761 - 0.808)
    row = line(found, "Dice: DSC++ - DSC")
    assert (row["ours"], row["paper"]) == (0.0, pytest.approx(0.004))


def test_temperature_needs_no_claim(results):
    make_run(results, "DSC", (0.1,) * 4, gamma=1.0, **SCALED)
    found = summary(results)
    row = line(found, "best temperature of DSC (above 1: overconfident)")
    assert (row["ours"], row["seeds"]) == (2.5, 1)
    row = line(found, "NLL: DSC + temperature / DSC++")
    assert row["ours"] == pytest.approx(0.1 / 0.05)
    text = answers.markdown(found, answers.QUESTIONS[5])
    # What seeds of a scaled loss differ by is not known: no interval.
    assert "preset paper, 1 seed | 2.00 |" in text
    # Neither a figure of the paper nor a claim in any row: no such columns.
    assert text.splitlines()[0] == "| comparison | on | ours | ours, both terms |"


def test_a_method_is_compared_within_its_trainings(results):
    """The trainings differ by a factor of two, the effect of the method by little."""
    make_run(results, "DSC", [0.5 * v for v in DSC_NLL], gamma=1.0, **SCALED)
    make_run(results, "DSC", (0.36,) * 4, gamma=1.0, seed=1, **SCALED)
    _, (study,) = opened(results)
    sides = (Variant.parse("DSC"), Variant("DSC", None, "temperature"))
    spread = method_spread(study, "vessel", "nll_published", "temperature", True)
    # Ratios .5 and .6: mean .55, standard deviation .0707.
    assert spread == pytest.approx((0.0707107 / 0.55, 1, True))
    effect = Runs(study).pair(sides[1], sides[0], "nll").effect
    assert effect.mean == pytest.approx((0.15 + 0.36) / (0.3 + 0.6))
    # The images alone are no part of it here: (a / mean a - b / mean b) by hand.
    a, b = ([0.5 * v + 0.36 for v in DSC_NLL], [v + 0.6 for v in DSC_NLL])
    parts = np.array(a) / np.mean(a) - np.array(b) / np.mean(b)
    of_images = parts.std(ddof=1) / 2
    of_trainings = 0.0707107 / 0.55 / math.sqrt(2)
    assert effect.standard_error == pytest.approx(math.hypot(of_images, of_trainings))


def test_a_scaled_loss_has_the_spread_of_scaled_losses(results):
    for seed, nll in enumerate((0.15, 0.19)):
        make_run(results, "DSC", (nll,) * 4, gamma=1.0, seed=seed, **SCALED)
    _, (study,) = opened(results)
    sides = (Variant("DSC", None, "temperature"), Variant.parse("DSC++"))
    effect = Runs(study).pair(*sides, "nll").effect
    # Of the scaled DSC s is .0282843 of .17; of those as trained DSC (.3 and .6) and
    # DSC++ (.05 and .06) have .212132 of .45 and .00707107 of .055.
    scaled = 0.0282843 / 0.17
    trained = math.hypot(0.212132 / 0.45, 0.00707107 / 0.055) / math.sqrt(2)
    plus = np.array(PLUS_NLL) + 0.06
    of_images = (plus / plus.mean()).std(ddof=1) / 2
    error = math.hypot(of_images, scaled / math.sqrt(2), trained / math.sqrt(2))
    assert effect.standard_error == pytest.approx(error, rel=1e-5)


def test_verdicts_are_copied_from_the_claims(results):
    paper, studies = opened(results)
    said = claims.decide(paper, studies)
    own = said["id"].eq("3.2.1-nll-drive")
    said.loc[own, ["verdict", "verdict_corrected"]] = ["seen at reduced", "undecided"]
    row = line(summary(results, said), "NLL: DSC++ / DSC")
    assert (row["claim"], row["verdict"]) == ("3.2.1-nll-drive", "seen at reduced")
    text = answers.markdown(summary(results, said), answers.QUESTIONS[0])
    words = "seen at reduced; undecided by both terms (`3.2.1-nll-drive`)"
    assert "| 0.12 [" in text and f"] | 1.00 [1.00, 1.00] | {words} |" in text
    row = line(summary(results), "Brier score: DSC++ / DSC")
    assert row["claim"] == "3.2.1-brier-drive"
    assert row["verdict"] == said.set_index("id").loc["3.2.1-brier-drive", "verdict"]


def test_paper_preset_comes_before_reduced_and_simulated_is_excluded(results):
    for loss, gamma in (("DSC", 1.0), ("DSC++", 2.0)):
        make_run(results, loss, (0.9,) * 4, gamma=gamma, preset="reduced")
    assert set(summary(results)["preset"]) == {"paper"}
    make_run(results, "CE", preset="reduced")
    # What was run at `reduced` alone is shown from there.
    assert line(summary(results), "NLL: DSC / CE")["preset"] == "reduced"


def test_one_seed_at_the_preset_paper_does_not_displace_several_at_reduced(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "DSC", (0.4,) * 4, gamma=1.0, seed=seed, preset="reduced")
        make_run(tmp_path, "DSC++", (0.1,) * 4, gamma=2.0, seed=seed, preset="reduced")
    make_run(tmp_path, "DSC", (0.9,) * 4, gamma=1.0)
    make_run(tmp_path, "DSC++", (0.9,) * 4, gamma=2.0)
    row = line(summary(tmp_path), "NLL: DSC++ / DSC")
    assert (row["preset"], row["seeds"], row["ours"]) == ("reduced", 2, 0.25)


@pytest.mark.parametrize(
    "ends, limits, text",
    [
        ((0.8, 0.825), (0, 1), " [0.80, 0.82]"),
        ((0.02, 1.28), (0, 1), " (too few seeds)"),
        ((-1.5, 0.5), (-1, 1), " (too few seeds)"),
        ((0.1, 73.5), (0, math.inf), " [0.10, 73.50]"),
        ((math.nan, math.nan), (0, 1), ""),
    ],
)
def test_an_interval_beyond_what_a_measure_can_be_is_not_printed(ends, limits, text):
    assert interval(ends, ".2f", limits) == text


def test_text_says_when_nothing_was_run(tmp_path):
    make_run(tmp_path, "DSC", simulated=True)
    found = summary(tmp_path)
    assert found.empty
    assert answers.markdown(found, answers.QUESTIONS[0]) == "*Not run yet.*"


def drawn(results):
    with style.drawing():
        return forest(frame.studies(results))


def points(axis):
    """The x values of what has a label, by label."""
    found = {one.get_label(): one.lines[0].get_xdata() for one in axis.containers}
    diamonds = [one for one in axis.get_lines() if one.get_marker() == "D"]
    found["paper"] = np.concatenate([one.get_xdata() for one in diamonds])
    return found


def test_forest_by_hand(results):
    for loss, gamma, nll in (("DSC", 1.0, 0.4), ("DSC++", 2.0, 0.3)):
        make_run(results, loss, (nll,) * 4, gamma=gamma, preset="reduced")
    left, right = drawn(results).axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels[:4] == [
        "DRIVE: paper",
        "ours, preset paper, 2 seeds",
        "ours, preset reduced, 1 seed",
        "BUS2017: paper",
    ]
    assert labels[-1] == "KiTS19, kidney tumour: paper"
    nll = [one for one in left.containers if "published" in one.get_label()]
    of_paper, of_reduced = (one.lines[0].get_xdata()[0] for one in nll)
    assert of_paper == pytest.approx(0.055 / 0.45, rel=1e-5)
    assert of_reduced == pytest.approx(0.75)
    # An interval where there are two trainings, none where there is one.
    assert [len(one.lines[2]) for one in nll] == [1, 0]
    (bar,) = nll[0].lines[2][0].get_segments()
    row = line(summary(results), "NLL: DSC++ / DSC")
    assert bar[:, 0] == pytest.approx([row["ci_low"], row["ci_high"]], rel=1e-4)
    assert points(left)["paper"][0] == pytest.approx(0.041 / 0.204, rel=1e-5)
    assert points(right)["paper"][0] == pytest.approx(0.004)
    assert len(points(left)["paper"]) == 7


def test_no_forest_without_both_losses_on_real_data(tmp_path):
    make_run(tmp_path, "DSC++", gamma=2.0)
    assert drawn(tmp_path) is None
    make_run(tmp_path, "DSC", simulated=True, dataset="phantom", title="phantom")
    make_run(tmp_path, "DSC++", gamma=2.0, simulated=True, dataset="phantom",
             title="phantom")  # fmt: skip
    assert drawn(tmp_path) is None
