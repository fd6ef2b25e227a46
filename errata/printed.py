"""Entries about what the paper prints: its text against its own tables.

The numbers are from `results/paper/*.csv`, the tables cell by cell. Numbers from the
text and from Table 1 are listed here with their section.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd
from scipy import stats

from errata.registry import RESULTS, Row, measured
from pipelines.measure import statistics
from pipelines.measure.metrics import PAPER_COLUMN
from pipelines.reporting.claims import published_claims
from pipelines.reporting.published import Paper
from pipelines.reporting.rules import FAILS

PAPER = Paper(RESULTS / "paper")
Cell = tuple[float, float]  # value and standard error
NAMES = {"nll": "NLL", "brier": "Brier", "dice": "Dice", "jaccard": "Jaccard"}

# Table 1: images, training, validation, test.
TABLE_1 = {
    "DRIVE": (40, 16, 4, 20),
    "BUS2017": (163, 104, 26, 33),
    "2018DSB": (670, 428, 108, 134),
    "ISIC2018": (2596, 1661, 417, 518),
    "CVC-ClinicDB": (612, 392, 98, 122),
    "KiTS19": (204, 130, 33, 41),
}
# Section 2.6, the text: images; those of KiTS19 are 300, less 90, less 6.
TEXT = {"BUS2017": 163, "2018DSB": 670, "ISIC2018": 2594, "CVC-ClinicDB": 612}
KITS19 = (300, 90, 6)


@cache
def printed(table: str) -> pd.DataFrame:
    """Return the cells of a table, as in `Paper.cells`, with the paper's metric."""
    words = {column: word for word, column in PAPER_COLUMN.items()}
    cells = PAPER.cells[PAPER.cells["table"] == table]
    return cells.assign(metric=cells["metric"].map(words))


def cell(table: str, metric: str, **where: str | float) -> Cell:
    """Return a printed mean and its standard error.

    Args:
        table: such as "table4".
        metric: such as "nll".
        **where: what names the row, such as dataset="DRIVE", loss="DSC".
    """
    cells = printed(table)
    for column, value in {"metric": metric, **where}.items():
        cells = cells[cells[column] == value]
    return float(cells["value"].item()), float(cells["standard_error"].item())


def by_gamma(metric: str) -> pd.Series:
    """Return the values of a metric in Table 3, by gamma."""
    return printed("table3").query("metric == @metric").set_index("gamma")["value"]


def p_of(a: Cell, b: Cell) -> float:
    """Return the two-sided p of a difference of two printed means, by their errors.

    For independent samples and a normal mean. This is not the paper's rank-sum test,
    but a reader can compute it from its table.
    """
    z = abs(a[0] - b[0]) / math.hypot(a[1], b[1])
    return float(2 * stats.norm.sf(z))


def count(metric: str, losses: list[str], lowest: bool) -> str | int:
    """Count data sets of Table 4 in which one of the losses is best: alone, and tied.

    Args:
        metric: such as "nll".
        losses: the losses.
        lowest: whether the first is the one of the lowest value.
    """
    cells = printed("table4").query("metric == @metric")
    table = cells.pivot_table("value", "dataset", "loss")
    first = table.eq(table.min(axis=1) if lowest else table.max(axis=1), axis=0)
    best = first[losses].any(axis=1)
    others = first.drop(columns=losses).any(axis=1)
    alone, tied = int((best & ~others).sum()), int((best & others).sum())
    return f"{alone} and {tied} tied" if tied else alone


@measured("table4-claims", "paper", "section 3.2.1 and abstract against Table 4")
def table4_claims() -> Iterator[Row]:
    """Compare how often a loss is best: in the text, and by the table, with ties."""
    claims = (
        ("DSC++ has the lowest Brier", "brier", ["DSC++"], 5),
        ("DSC++ has the highest Dice", "dice", ["DSC++"], 4),
        ("DSC++ has the highest Jaccard", "jaccard", ["DSC++"], 3),
        ("CE or Focal has the lowest Dice", "dice", ["CE", "Focal"], 5),
        ("Focal has the lowest Dice", "dice", ["Focal"], 4),
        ("Focal has the lowest Jaccard", "jaccard", ["Focal"], 4),
        ("DSC++ has the lowest NLL", "nll", ["DSC++"], None),
    )
    for text, metric, losses, claimed in claims:
        counted = count(metric, losses, "lowest" in text)
        yield Row(text, claimed, counted, unit="of five data sets")


def against(rule: str, claimed: str) -> Iterator[Row]:
    """Yield p of each pair of printed means that contradicts a claim.

    Args:
        rule: rule of the claims, "differs" or "no difference".
        claimed: what the text says about p.
    """
    seen = set()
    claims = [claim for claim in published_claims(PAPER) if claim.row["rule"] == rule]
    for claim, part in ((c, part) for c in claims for part in c.parts):
        means = PAPER.printed_means(
            part.dataset, part.target, part.measured, part.metric
        )
        for a, b in product(part.a, part.b) if part.b else combinations(part.a, 2):
            alone = dataclasses.replace(part, a=(a,), b=(b,))
            key = (part.name, frozenset((a, b)))
            if key not in seen and claim.rule.in_print(alone, means) == FAILS:
                seen.add(key)
                where = part.name.removesuffix(f" {part.metric}")
                text = (
                    f"p of {NAMES[part.metric]}, {a.label} against {b.label}, {where}"
                )
                pair = ((means[v].value, means[v].judged_error) for v in (a, b))
                yield Row(text, claimed, p_of(*pair))


@measured("no-difference-claims", "paper", "all such claims: p by printed SE")
def no_difference_claims() -> Iterator[Row]:
    """List claims of no difference whose means differ by over 1.96 SE."""
    yield from against("no difference", "not below 0.05")


@measured("significant-claims", "paper", "all such claims: p by printed SE")
def significant_claims() -> Iterator[Row]:
    """List claims of a difference whose means differ by less than 1.96 SE."""
    yield from against("differs", "below 0.05")
    sets = {row["dataset"] for row in PAPER.p_values if row["metric"] == "brier"}
    text = "data sets with a printed p below 0.05 for Brier, DSC++ against DSC"
    yield Row(text, 6, len(sets), unit="of six")


@measured("one-rule-for-both", "paper", "Tables 3 to 6: p by printed SE")
def one_rule_for_both() -> Iterator[Row]:
    """List pairs with similar printed errors that the text treats unequally."""
    significant, none = "significant", "not significant"

    def drive(metric: str, loss: str) -> Cell:
        return cell("table4", metric, dataset="DRIVE", loss=loss)

    for metric in ("dice", "jaccard"):
        plus = drive(metric, "DSC++")
        for name, rival, claimed in (
            ("Focal", drive(metric, "Focal"), significant),
            ("gamma 4.5", cell("table3", metric, gamma=4.5), none),
        ):
            where = f"{NAMES[metric]}, DSC++ at gamma 2 against {name}, DRIVE"
            yield Row(f"mean of {where}", plus[0], rival[0])
            yield Row(f"p of {where}", claimed, p_of(plus, rival))
    for metric, claimed in (("dice", significant), ("nll", none)):
        p = p_of(drive(metric, "DSC++"), drive(metric, "CE"))
        yield Row(f"p of {NAMES[metric]}, DSC++ against CE, DRIVE", claimed, p)
    for loss, claimed_p in (("DSC", 2e-6), ("CE", 4e-7), ("Focal", 0.0002)):
        p = p_of(*(_kits19("kidney tumour", name, "dice") for name in (loss, "DSC++")))
        yield Row(f"p of Dice, DSC++ against {loss}, KiTS19 tumour", claimed_p, p)
    others = ("Tversky", "Focal Tversky")
    for metric in ("dice", "jaccard"):
        for loss in ("Combo", "Unified Focal"):
            rivals = [cell("table6", metric, loss=name) for name in others]
            rivals.append(drive(metric, "DSC"))
            mean, _ = cell("table6", metric, loss=loss)
            names = ", ".join(("DSC", *others))
            text = f"{loss} has a higher {NAMES[metric]} than {names}"
            ahead = sum(mean > value for value, _ in rivals)
            yield Row(text, "generally", ahead, unit="of three")


def _kits19(target: str, loss: str, metric: str) -> Cell:
    return cell("table5", metric, target=target, loss=loss)


@measured("gamma-claims", "paper", "section 3.1 against Table 3")
def gamma_claims() -> Iterator[Row]:
    """Check the NLL's plateau and both scores' rise above gamma 2.5 in the table."""
    nll = by_gamma("nll")
    ratios = nll[nll.index > 2] / nll[2.0]
    yield Row("NLL above gamma 2 over that at 2, lowest", "plateau", ratios.min())
    yield Row("NLL above gamma 2 over that at 2, highest", "plateau", ratios.max())
    for metric in ("nll", "brier"):
        steps = list(pairwise(by_gamma(metric).loc[2.5:]))
        yield Row(
            f"steps of gamma from 2.5 on with a higher {NAMES[metric]}",
            len(steps),
            sum(after > before for before, after in steps),
            unit=f"of {len(steps)}",
        )


@measured("table3-errors", "paper", "Table 3, Jaccard; p against gamma 2")
def table3_errors() -> Iterator[Row]:
    """Compare the standard errors .05 as printed with .005."""
    standard = cell("table3", "jaccard", gamma=2.0)
    for gamma in (1.0, 2.5):
        value, error = cell("table3", "jaccard", gamma=gamma)
        yield Row(f"standard error at gamma {gamma:g}", error, error / 10)
        p = (p_of((value, spread), standard) for spread in (error, error / 10))
        yield Row(f"p of gamma {gamma:g} against 2", *p)


@measured("same-run-two-errors", "paper", "Table 3's gamma 1 and Table 4's DSC, DRIVE")
def same_run_two_errors() -> Iterator[Row]:
    """Compare the errors of one model in two tables (two bootstraps)."""
    one = cell("table3", "nll", gamma=1.0)
    other = cell("table4", "nll", dataset="DRIVE", loss="DSC")
    for name, *pair in zip(("mean", "standard error"), one, other, strict=True):
        yield Row(f"{name} of NLL: Table 3, Table 4", *pair)


@measured("counts", "paper", "Table 1; the text of section 2.6")
def counts() -> Iterator[Row]:
    """List numbers of images that do not agree, and those of KiTS19, which do."""
    for name, (images, *parts) in TABLE_1.items():
        if name in TEXT and (TEXT[name] != images or sum(parts) != images):
            yield Row(f"{name}, images", images, TEXT[name])
            yield Row(f"{name}, validation", parts[1], TEXT[name] - parts[0] - parts[2])
    labelled, without, poor = KITS19
    yield Row("KiTS19, images", TABLE_1["KiTS19"][0], labelled - without - poor)
    agree = sum(sum(parts) == images for images, *parts in TABLE_1.values())
    yield Row("data sets whose parts sum to the whole", 6, agree, unit="of six")


@measured("image-sizes", "paper", "section 2.6; the files, Table 1")
def image_sizes() -> Iterator[Row]:
    """Compare image sizes in the text with those of the images, in pixels."""
    sizes = {
        "DRIVE": ((584, 768), (584, 565)),
        "CVC-ClinicDB": ((288, 368), (288, 384)),
    }
    for name, (claimed, real) in sizes.items():
        yield Row(
            f"{name}, rows x columns", *("x".join(map(str, s)) for s in (claimed, real))
        )
        yield Row(f"{name}, pixels", math.prod(claimed), math.prod(real))


@measured("p-of-20", "paper", "printed p of DRIVE; two samples of 20, fully separated")
def p_of_20() -> Iterator[Row]:
    """Compute the smallest p of the test for 20 images: it means fully separated."""
    low, high = np.arange(1.0, 21), np.arange(1.0, 21) ** 1.1 + 100
    smallest = statistics.rank_sum(low, high).p
    yield Row("p of NLL, DRIVE; the smallest possible", 6e-8, smallest)
    paired = statistics.signed_rank(low, high).p
    yield Row("the smallest p of the paired test", None, paired)


@measured("many-tests", "paper", "the 13 printed p values")
def many_tests() -> Iterator[Row]:
    """Count printed p below 0.05 without a correction, and with Holm's."""
    p = np.array([float(row["p"]) for row in PAPER.p_values])
    corrected = statistics.holm(p)
    below = ((values < 0.05).sum() for values in (p, corrected))
    yield Row("p values below 0.05", *below, unit=f"of {len(p)}")
    yield Row("largest p", p.max(), corrected.max())
    # The p values of the other two data sets are not printed: they are above 0.05.
    family = statistics.holm([2e-7, 0.01, 0.04, 1, 1])
    yield Row("p of CVC-ClinicDB's Brier score, in its family of five", 0.04, family[2])


@measured("kits19-p-values", "paper", "section 3.2.2 against Table 5")
def kits19_p_values() -> Iterator[Row]:
    """Compare the printed p with both calibration scores: DSC++ and DSC, by SE."""
    for target, claimed in (("kidney", 3e-8), ("kidney tumour", 2e-8)):
        for metric, name in (("nll", "NLL"), ("brier", "Brier")):
            p = p_of(*(_kits19(target, loss, metric) for loss in ("DSC", "DSC++")))
            where = f"p of {target}, {name} (the text: of calibration scores)"
            yield Row(where, claimed, p)


@measured("threshold-cost", "paper", "section 3.4: DSC++ on DRIVE")
def threshold_cost() -> Iterator[Row]:
    """Express "little effect on the DSC score" in standard errors of Table 4."""
    value, error = cell("table4", "dice", dataset="DRIVE", loss="DSC++")
    for printed in PAPER.thresholds:
        if printed.metric == "dice":
            lost = (value - printed.value) / error
            where = f"Dice lost at T = {printed.variant.threshold}, in standard errors"
            yield Row(where, "little", lost)
