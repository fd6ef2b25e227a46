"""Entries about what the paper prints: its text against its own tables.

All from `results/paper/*.csv`, the tables cell by cell, and from the numbers that the
text and Table 1 print, which stand here with their section.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise, product

import numpy as np
from scipy import stats

from errata.registry import RESULTS, Row, measured
from pipelines.measure import statistics
from pipelines.reporting.claims import published_claims
from pipelines.reporting.evidence import Printed
from pipelines.reporting.published import Paper
from pipelines.reporting.rules import FAILS

PAPER = RESULTS / "paper"
Cell = tuple[float, float]  # value and standard error
LOWER = ("nll", "brier")
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


def cells(table: str, *keys: str) -> dict[tuple[str, ...], dict[str, Cell]]:
    """The printed cells of a table.

    Args:
        table: such as "table4".
        keys: columns that name a row, such as "dataset", "loss".

    Returns:
        by row and metric: value and standard error.
    """
    found: dict[tuple[str, ...], dict[str, Cell]] = defaultdict(dict)
    with (PAPER / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pair = float(row["value"]), float(row["standard_error"])
            found[tuple(row[key] for key in keys)][row["metric"]] = pair
    return dict(found)


def p_of(a: Cell, b: Cell) -> float:
    """Two-sided p of a difference of two printed means, by their standard errors.

    For independent samples and a normal mean: not the paper's rank-sum test, but what
    its table lets a reader check.
    """
    z = abs(a[0] - b[0]) / math.hypot(a[1], b[1])
    return float(2 * stats.norm.sf(z))


def best(metric: str, row: dict[str, float], worst: bool = False) -> list[str]:
    """The losses that share the best (or worst) value of a metric."""
    lowest = (metric in LOWER) != worst
    limit = (min if lowest else max)(row.values())
    return [loss for loss, value in row.items() if value == limit]


def by_dataset(metric: str) -> list[dict[str, float]]:
    """Table 4: the values of the four losses, for each of the five data sets."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (dataset, loss), row in cells("table4", "dataset", "loss").items():
        found[dataset][loss] = row[metric][0]
    return list(found.values())


def count(metric: str, losses: Iterable[str], worst: bool = False) -> tuple[int, int]:
    """Data sets of five where one of the losses is best: alone, and alone or tied."""
    found = [set(best(metric, row, worst)) for row in by_dataset(metric)]
    return (
        sum(names <= set(losses) for names in found),
        sum(bool(names & set(losses)) for names in found),
    )


@measured("table4-claims", "paper", "section 3.2.1 and abstract against Table 4")
def table4_claims() -> Iterator[Row]:
    """How often a loss is best: as the text says, and by the table, ties apart."""
    claims = (
        ("DSC++ has the lowest Brier", "brier", ["DSC++"], False, 5),
        ("DSC++ has the highest Dice", "dice", ["DSC++"], False, 4),
        ("DSC++ has the highest Jaccard", "jaccard", ["DSC++"], False, 3),
        ("CE or Focal has the lowest Dice", "dice", ["CE", "Focal"], True, 5),
        ("Focal has the lowest Dice", "dice", ["Focal"], True, 4),
        ("Focal has the lowest Jaccard", "jaccard", ["Focal"], True, 4),
    )
    for text, metric, losses, worst, said in claims:
        alone, tied = count(metric, losses, worst)
        shared = f"{alone} and {tied - alone} tied" if tied > alone else alone
        yield Row(text, said, shared, unit="of five data sets")
    alone, tied = count("nll", ["DSC++"])
    shared = f"{alone} and {tied - alone} tied" if tied > alone else alone
    yield Row("DSC++ has the lowest NLL", None, shared, unit="of five data sets")


def against(rule: str, said: str) -> Iterator[Row]:
    """P of each pair of printed means that does not bear out a claim.

    Args:
        rule: of the claims, "differs" or "no difference".
        said: what the text says of p.
    """
    paper, seen = Paper(PAPER), set()
    printed = Printed(paper)
    claims = (one for one in published_claims(paper) if one.row["rule"] == rule)
    for own, part in ((one, part) for one in claims for part in one.parts):
        found = printed.figures(part.dataset, part.target, part.measured, part.metric)
        for a, b in product(part.a, part.b) if part.b else combinations(part.a, 2):
            alone = dataclasses.replace(part, a=(a,), b=(b,))
            key = (part.name, frozenset((a, b)))
            if key not in seen and own.rule.in_print(alone, found) == FAILS:
                seen.add(key)
                where = part.name.removesuffix(f" {part.metric}")
                text = (
                    f"p of {NAMES[part.metric]}, {a.label} against {b.label}, {where}"
                )
                yield Row(text, said, p_of(found[a], found[b]))


@measured("no-difference-claims", "paper", "all such claims: p by printed SE")
def no_difference_claims() -> Iterator[Row]:
    """What the text calls no significant difference, beyond 1.96 printed errors."""
    yield from against("no difference", "not below 0.05")


@measured("significant-claims", "paper", "all such claims: p by printed SE")
def significant_claims() -> Iterator[Row]:
    """What the text calls a significant difference, within 1.96 printed errors."""
    yield from against("differs", "below 0.05")
    with (PAPER / "pvalues.csv").open(newline="", encoding="utf-8") as file:
        printed = {
            row["dataset"] for row in csv.DictReader(file) if row["metric"] == "brier"
        }
    yield Row(
        "data sets with a printed p below 0.05 for Brier, DSC++ against DSC",
        6,
        len(printed),
        unit="of six",
    )


@measured("one-rule-for-both", "paper", "Tables 3 to 6: p by printed SE")
def one_rule_for_both() -> Iterator[Row]:
    """Pairs that the printed errors tell apart alike, and the text does not."""
    table3, table4 = cells("table3", "gamma"), cells("table4", "dataset", "loss")
    plus, significant, none = table4["DRIVE", "DSC++"], "significant", "not significant"
    for metric in ("dice", "jaccard"):
        for name, other, said in (
            ("Focal", table4["DRIVE", "Focal"], significant),
            ("gamma 4.5", table3["4.5",], none),
        ):
            where = f"{NAMES[metric]}, DSC++ at gamma 2 against {name}, DRIVE"
            yield Row(f"mean of {where}", plus[metric][0], other[metric][0])
            yield Row(f"p of {where}", said, p_of(plus[metric], other[metric]))
    for metric, said in (("dice", significant), ("nll", none)):
        p = p_of(plus[metric], table4["DRIVE", "CE"][metric])
        yield Row(f"p of {NAMES[metric]}, DSC++ against CE, DRIVE", said, p)
    table5 = cells("table5", "target", "loss")
    for loss, said_p in (("DSC", 2e-6), ("CE", 4e-7), ("Focal", 0.0002)):
        pair = (table5["kidney tumour", one]["dice"] for one in (loss, "DSC++"))
        where = f"DSC++ against {loss}, KiTS19 tumour"
        yield Row(f"p of Dice, {where}", said_p, p_of(*pair))
    table6 = cells("table6", "loss") | {("DSC",): table4["DRIVE", "DSC"]}
    others = ("DSC", "Tversky", "Focal Tversky")
    for metric in ("dice", "jaccard"):
        for loss in ("Combo", "Unified Focal"):
            own, *rivals = (table6[one,][metric][0] for one in (loss, *others))
            said = f"{loss} has a higher {NAMES[metric]} than {', '.join(others)}"
            ahead = sum(own > value for value in rivals)
            yield Row(said, "generally", ahead, unit="of three")


@measured("gamma-claims", "paper", "section 3.1 against Table 3")
def gamma_claims() -> Iterator[Row]:
    """The plateau of the NLL, the rise of both scores above 2.5, by the table."""
    table = {float(g): row for (g,), row in cells("table3", "gamma").items()}
    nll = {gamma: row["nll"][0] for gamma, row in table.items() if gamma >= 2}
    ratios = [value / nll[2.0] for gamma, value in nll.items() if gamma > 2]
    yield Row("NLL above gamma 2 over that at 2, lowest", "plateau", min(ratios))
    yield Row("NLL above gamma 2 over that at 2, highest", "plateau", max(ratios))
    for metric in ("nll", "brier"):
        values = [row[metric][0] for gamma, row in table.items() if gamma >= 2.5]
        steps = list(pairwise(values))
        yield Row(
            f"steps of gamma from 2.5 on with a higher {NAMES[metric]}",
            len(steps),
            sum(after > before for before, after in steps),
            unit=f"of {len(steps)}",
        )


@measured("table3-errors", "paper", "Table 3, Jaccard; p against gamma 2")
def table3_errors() -> Iterator[Row]:
    """The standard errors .05 as printed, and as .005."""
    table = {float(g): row["jaccard"] for (g,), row in cells("table3", "gamma").items()}
    for gamma in (1.0, 2.5):
        value, error = table[gamma]
        yield Row(f"standard error at gamma {gamma:g}", error, error / 10)
        yield Row(
            f"p of gamma {gamma:g} against 2",
            p_of((value, error), table[2.0]),
            p_of((value, error / 10), table[2.0]),
        )


@measured("same-run-two-errors", "paper", "Table 3's gamma 1 and Table 4's DSC, DRIVE")
def same_run_two_errors() -> Iterator[Row]:
    """One model in two tables: the bootstrap was drawn anew."""
    one = cells("table3", "gamma")["1.0",]
    other = cells("table4", "dataset", "loss")["DRIVE", "DSC"]
    for part, name in enumerate(("mean", "standard error")):
        yield Row(
            f"{name} of NLL: Table 3, Table 4", one["nll"][part], other["nll"][part]
        )


@measured("counts", "paper", "Table 1; the text of section 2.6")
def counts() -> Iterator[Row]:
    """Numbers of images that do not agree, and KiTS19's, which do."""
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
    """Sizes in the text, and those of the images; pixels by them."""
    sizes = {
        "DRIVE": ((584, 768), (584, 565)),
        "CVC-ClinicDB": ((288, 368), (288, 384)),
    }
    for name, (said, real) in sizes.items():
        yield Row(
            f"{name}, rows x columns", *("x".join(map(str, s)) for s in (said, real))
        )
        yield Row(f"{name}, pixels", math.prod(said), math.prod(real))


@measured("p-of-20", "paper", "printed p of DRIVE; two samples of 20, fully separated")
def p_of_20() -> Iterator[Row]:
    """The smallest p that the test can give for 20 images: it says "separated"."""
    low, high = np.arange(1.0, 21), np.arange(1.0, 21) ** 1.1 + 100
    smallest = statistics.rank_sum(low, high).p
    yield Row("p of NLL, DRIVE; the smallest possible", 6e-8, smallest)
    yield Row(
        "the smallest p of the paired test", None, statistics.signed_rank(low, high).p
    )


@measured("many-tests", "paper", "the 13 printed p values")
def many_tests() -> Iterator[Row]:
    """Those below 0.05 without a correction, and with Holm's over what is printed."""
    with (PAPER / "pvalues.csv").open(newline="", encoding="utf-8") as file:
        p = [float(row["p"]) for row in csv.DictReader(file)]
    corrected = statistics.holm(p)
    yield Row(
        "p values below 0.05",
        sum(one < 0.05 for one in p),
        int((corrected < 0.05).sum()),
        unit=f"of {len(p)}",
    )
    yield Row("largest p", max(p), float(corrected.max()))
    # The p values of the other two data sets are not printed: they are above 0.05.
    family = [2e-7, 0.01, 0.04, 1, 1]
    yield Row(
        "p of CVC-ClinicDB's Brier score, in its family of five",
        0.04,
        float(statistics.holm(family)[2]),
    )


@measured("kits19-p-values", "paper", "section 3.2.2 against Table 5")
def kits19_p_values() -> Iterator[Row]:
    """Which calibration score the printed p can be of: DSC++ against DSC, by SE."""
    table = cells("table5", "target", "loss")
    for target, said in (("kidney", 3e-8), ("kidney tumour", 2e-8)):
        for metric, name in (("nll", "NLL"), ("brier", "Brier")):
            pair = (table[target, loss][metric] for loss in ("DSC", "DSC++"))
            yield Row(
                f"p of {target}, {name} (the text: of calibration scores)",
                said,
                p_of(*pair),
            )


@measured("threshold-cost", "paper", "section 3.4: DSC++ on DRIVE")
def threshold_cost() -> Iterator[Row]:
    """What "little effect on the DSC score" is in standard errors of Table 4."""
    value, error = cells("table4", "dataset", "loss")["DRIVE", "DSC++"]["dice"]
    with (PAPER / "thresholds.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "dice":
                lost = value - float(row["value"])
                yield Row(
                    f"Dice lost at T = {row['threshold']}, in standard errors",
                    "little",
                    lost / error,
                )
