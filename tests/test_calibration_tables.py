"""calibration.csv, reliability.csv and observers.csv against the voxels themselves."""

import csv
import json
import shutil
import types
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from pipelines.measure import histograms, metrics
from pipelines.measure.calibration import Bins
from pipelines.prediction import evaluate
from pipelines.reporting import calibration_tables, frame, pages
from pipelines.reporting.figures import curves, style

SHAPE = (40, 30)
CASES = ("01", "02", "03")
WIDE = np.arange(1, 20) / 20
HUMAN = {"loss": "", "gamma": "", "method": "observer2"}
LOSSES = {"CE": 1.0, "DSC": 2.0}  # sharper by this factor, in logit


@dataclass
class Images(Dataset):
    """A data set, from arrays."""

    labels: dict[str, dict[str, np.ndarray]]
    where: dict[str, dict[str, np.ndarray]]

    def record(self, root):
        return types.SimpleNamespace(classes=("background", "vessel"), is_3d=False)

    def references(self, root, case):
        return self.labels[case]

    def regions(self, root, case):
        return self.where[case]

    @staticmethod
    def geometry(root, case):
        return None


@pytest.fixture(scope="module")
def images():
    """Three images whose second observer agrees mostly; the last one is empty."""
    random = np.random.default_rng(4)
    labels, where = {}, {}
    for case in CASES:
        first = (random.random(SHAPE) < 0.08 * (case != "03")).astype(np.uint8)
        second = first ^ (random.random(SHAPE) < 0.03 * (case != "03"))
        labels[case] = {"observer1": first, "observer2": second.astype(np.uint8)}
        circle = np.zeros(SHAPE, bool)
        circle[4:-4, 4:-6] = True
        where[case] = {"image": np.ones(SHAPE, bool), "field of view": circle}
    return Images(labels, where)


def softmax(images, case, sharper, seed):
    """P of a network that sees both observers' mean through noise; float32."""
    random = np.random.default_rng([int(case), seed])
    mean = np.mean(list(images.labels[case].values()), axis=0)
    p = 1 / (1 + np.exp(-sharper * (6 * mean - 3 + random.normal(size=SHAPE))))
    return np.stack([1 - p, p], axis=-1).astype(np.float32)


def make_run(results, images, loss, seed=0, *, old=False):
    """Write a run as `dscpp evaluate` does; `old` is one without means."""
    record = {
        "format": 1, "dataset": "drive", "title": "DRIVE", "simulated": False,
        "preset": "reduced", "loss": loss, "gamma": None, "seed": seed, "method": "",
        "backend": "tensorflow", "overrides": {}, "data_hash": "a" * 64,
        "split": {"training": [], "validation": [], "test": list(CASES)},
        "state": "evaluated",
    }  # fmt: skip
    rows, pairs = [], []
    for case in CASES:
        p = softmax(images, case, LOSSES[loss], seed)
        measured = evaluate.measure_case(
            images, None, "test", case, lambda _, p=p: [(slice(None), p)]
        )
        rows += measured[0]
        pairs += measured[1]
    for row in rows if old else ():
        del row["sums"]
    folder = results / "drive" / "reduced" / "runs" / f"{loss.lower()}-s{seed}"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    evaluate.write(folder, record, rows, pairs)


def read(results, name):
    with (results / "drive" / "reduced" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def one(rows, **wanted):
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row


@pytest.fixture(scope="module")
def written(tmp_path_factory, images):
    """One run of each loss and the tables, for tests that only read."""
    folder = tmp_path_factory.mktemp("results")
    for loss in LOSSES:
        make_run(folder, images, loss)
    pages.Report(folder).write()
    return folder


def voxels(images, case, region, reference, loss="CE", seed=0):
    """p and label, (n,), of one case in a region; labels of both are averaged."""
    mask = evaluate._regions(images, None, case, images.labels[case]).get(region)
    if mask is None:
        return np.zeros(0), np.zeros(0)
    label = images.labels[case].get(reference)
    if label is None:
        label = np.mean(list(images.labels[case].values()), axis=0)
    p = softmax(images, case, LOSSES[loss], seed)[..., 1].astype(np.float64)
    return p[mask], label[mask].astype(np.float64)


def gaps(p, y):
    """|share - mean p| and share of voxels of each bin that is not empty."""
    which = np.searchsorted(WIDE, p, side="right")
    held = np.unique(which)
    gap = [abs(y[which == k].mean() - p[which == k].mean()) for k in held]
    return np.array(gap), np.array([(which == k).mean() for k in held])


@pytest.mark.parametrize("region", ["image", "field of view", "band"])
@pytest.mark.parametrize(
    "reference", ["observer1", "observer2", calibration_tables.MEAN_OF_BOTH]
)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_measure_equals_that_of_the_voxels(
    written, images, region, reference, loss
):
    rows = read(written, "calibration.csv")
    where = {"loss": loss, "region": region, "reference": reference}
    by_case = [voxels(images, case, region, reference, loss) for case in CASES]
    by_case = [(p, y) for p, y in by_case if p.size]
    pooled = [np.concatenate(part) for part in zip(*by_case, strict=True)]
    expected = {
        "ece": lambda p, y: np.prod(gaps(p, y), axis=0).sum(),
        "ace": lambda p, y: gaps(p, y)[0].mean(),
        "mce": lambda p, y: gaps(p, y)[0].max(),
        "nll": lambda p, y: -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)),
        # Of an observer drawn at random: y is 0 or 1, on average this.
        "brier": lambda p, y: np.mean(y * (1 - p) ** 2 + (1 - y) * p**2),
        "uncertainty": lambda p, y: y.mean() * (1 - y.mean()),
    }
    for measure, function in expected.items():
        row = one(rows, measure=measure, **where)
        each = [function(p, y) for p, y in by_case]
        assert float(row["mean"]) == pytest.approx(np.mean(each), rel=1e-5), measure
        assert float(row["pooled"]) == pytest.approx(function(*pooled), rel=1e-5)
        assert int(row["n"]) + int(row["n_undefined"]) == len(CASES)
        assert row["p_in_bins"] == "mean"
    # The empty image has no band.
    assert int(row["n_undefined"]) == (region == "band")


@pytest.mark.parametrize("column", ["mean", "pooled"])
def test_murphys_parts_add_up_to_the_brier_score(written, column):
    rows = read(written, "calibration.csv")
    places = {(r["loss"], r["region"], r["reference"]) for r in rows}
    assert len(places) == 2 * 3 * 3
    for loss, region, reference in places:
        found = {
            r["measure"]: float(r[column])
            for r in rows
            if (r["loss"], r["region"], r["reference"]) == (loss, region, reference)
        }
        total = found["reliability"] - found["resolution"]
        total += found["uncertainty"] + found["within_bins"]
        assert total == pytest.approx(found["brier"], abs=1e-6)
        assert abs(found["within_bins"]) < 0.02 * found["brier"]


def test_reliability_diagrams(written, images):
    rows = read(written, "reliability.csv")
    assert len(rows) == 2 * 3 * 3 * 20
    both = [r for r in rows if r["reference"] == calibration_tables.MEAN_OF_BOTH]
    for row in both:
        p, y = (
            np.concatenate(part)
            for part in zip(
                *(voxels(images, c, row["region"], "mean", row["loss"]) for c in CASES),
                strict=True,
            )
        )
        inside = np.searchsorted(WIDE, p, side="right") == round(
            20 * float(row["bin_low"])
        )
        assert int(row["n_voxels"]) == inside.sum()
        if not inside.any():
            assert row["confidence"] == row["frequency"] == row["share_one"] == ""
            continue
        close = {"rel": 1e-5, "abs": 1e-9}
        assert float(row["confidence"]) == pytest.approx(p[inside].mean(), **close)
        assert float(row["frequency"]) == pytest.approx(y[inside].mean(), **close)
        for name, value in (("none", 0), ("one", 0.5), ("both", 1)):
            share = np.mean(y[inside] == value)
            assert float(row[f"share_{name}"]) == pytest.approx(share, **close)
    alone = [r for r in rows if r["reference"] == "observer1"]
    assert {r["share_one"] for r in alone} == {""}


def test_spread_of_the_cases_in_a_bin(written, images):
    rows = read(written, "reliability.csv")
    where = {"loss": "CE", "region": "image", "reference": "observer1"}
    row = one(rows, bin_low="0", **where)
    shares = []
    for case in CASES:
        p, y = voxels(images, case, "image", "observer1")
        assert (p < 0.05).sum() >= calibration_tables.ENOUGH
        shares.append(y[p < 0.05].mean())
    assert row["n_cases"] == "3"
    ends = np.percentile(shares, [10, 90])
    found = [float(row[name]) for name in ("frequency_p10", "frequency_p90")]
    assert found == pytest.approx(ends, rel=1e-5, abs=1e-9)


def test_observers_agree_as_their_masks_do(written, images):
    rows = read(written, "observers.csv")
    human = {**HUMAN, "region": "image"}
    dice, recall, apart = [], [], []
    for case in CASES[:2]:
        first, second = images.labels[case].values()
        both = np.sum(first & second)
        dice.append(2 * both / (first.sum() + second.sum()))
        recall.append(both / first.sum())
    for case in CASES:
        first, second = images.labels[case].values()
        apart.append(np.mean(first != second))
    row = one(rows, measure="dice", **human)
    assert float(row["mean"]) == pytest.approx(np.mean(dice), rel=1e-5)
    # Nobody marked anything in the third image.
    assert (row["n"], row["n_undefined"], row["seeds"]) == ("2", "1", "1")
    row = one(rows, measure="recall", **human)
    assert float(row["mean"]) == pytest.approx(np.mean(recall), rel=1e-5)
    for measure in ("brier", "share_one"):
        row = one(rows, measure=measure, **human)
        assert float(row["mean"]) == pytest.approx(np.mean(apart), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_p_where_observers_agree_and_where_not(written, images, loss):
    rows = read(written, "observers.csv")
    for name, value in (("none", 0), ("one", 0.5), ("both", 1)):
        means, near = [], []
        for case in CASES:
            p, y = voxels(images, case, "image", "mean", loss)
            p = p[y == value]
            if p.size:
                means.append(p.mean())
                near.append(np.mean((p >= 0.25) & (p < 0.75)))
        where = {"loss": loss, "region": "image"}
        row = one(rows, measure=f"near_half_{name}", **where)
        assert float(row["mean"]) == pytest.approx(np.mean(near), rel=1e-5)
        row = one(rows, measure=f"mean_p_{name}", **where)
        assert float(row["mean"]) == pytest.approx(np.mean(means), abs=0.005)


def test_table_compares_networks_with_the_second_observer(written, images):
    rows = read(written, "observers.csv")
    keys = [(r["loss"], r["gamma"], r["method"]) for r in rows]
    human = tuple(HUMAN.values())
    order = [human, ("CE", "", ""), ("DSC", "", "")]
    assert keys == sorted(keys, key=order.index)
    for reference in ("observer1", "observer2"):
        expected = []
        for case in CASES:
            p, y = voxels(images, case, "field of view", reference, "DSC")
            softmax_ = np.stack([1 - p, p], axis=-1)
            found = metrics.case_metrics(y.astype(int), softmax_, target=1)
            expected.append(found["dice"])
        where = {"loss": "DSC", "region": "field of view", "reference": reference}
        row = one(rows, measure="dice", **where)
        assert float(row["mean"]) == pytest.approx(np.nanmean(expected), rel=1e-5)


def test_seeds_are_averaged(tmp_path, images):
    for seed in (0, 1):
        make_run(tmp_path, images, "CE", seed)
    pages.Report(tmp_path).write()
    row = one(
        read(tmp_path, "calibration.csv"),
        loss="CE", region="image", reference="observer1", measure="ece",
    )  # fmt: skip
    each = [
        np.prod(gaps(*voxels(images, case, "image", "observer1", seed=seed)), 0).sum()
        for seed in (0, 1)
        for case in CASES
    ]
    assert float(row["mean"]) == pytest.approx(np.mean(each), rel=1e-5)
    assert (row["seeds"], row["n"]) == ("2", "3")


def test_runs_without_bin_means_use_centres(tmp_path, images):
    make_run(tmp_path, images, "CE", old=True)
    pages.Report(tmp_path).write()
    for name in ("calibration.csv", "reliability.csv"):
        assert {row["p_in_bins"] for row in read(tmp_path, name)} == {"centre"}


@pytest.mark.slow
def test_run_without_a_region_is_left_out(tmp_path, images):
    """As where a run from before the band was measured stands beside a newer one."""
    make_run(tmp_path, images, "DSC")
    for seed in (0, 1):
        make_run(tmp_path, images, "CE", seed)
    path = tmp_path / "drive" / "reduced" / "runs" / "ce-s1" / "histograms.npz"
    found = histograms.load(path)
    keep = found.region != "band"
    pairs = found.pair_region != "band"
    values = {
        name: value[pairs if name.startswith("pair") else keep]
        for name, value in vars(found).items()
        if name != "edges"
    }
    histograms.save(path, histograms.Histograms(edges=found.edges, **values))
    pages.Report(tmp_path).write()
    rows = read(tmp_path, "calibration.csv")
    both = [row for row in rows if row["loss"] == "CE"]
    assert {row["seeds"] for row in both} == {"1"}
    for path in (tmp_path / "drive" / "reduced" / "runs").glob("ce-s1*"):
        shutil.rmtree(path)
    pages.Report(tmp_path).write()
    alone = [r for r in read(tmp_path, "calibration.csv") if r["loss"] == "CE"]
    assert {row["region"] for row in alone} == {"image", "field of view", "band"}
    assert both == alone


def test_one_observer_alone_has_no_table_of_two(tmp_path, images):
    stale = tmp_path / "drive" / "reduced" / "observers.csv"
    make_run(tmp_path, images, "CE")
    pages.Report(tmp_path).write()
    assert stale.is_file()
    alone = {c: {"observer1": one["observer1"]} for c, one in images.labels.items()}
    shutil.rmtree(tmp_path / "drive" / "reduced" / "runs")
    make_run(tmp_path, Images(alone, images.where), "CE", seed=1)
    pages.Report(tmp_path).write()
    assert not stale.exists()
    found = read(tmp_path, "calibration.csv")
    assert {row["reference"] for row in found} == {"observer1"}


@pytest.mark.slow
def test_committed_scores_lie_where_their_histograms_allow(project):
    """Each voxel's p is in its bin: that bounds the Brier score of cases.csv."""
    checked = 0
    for study in frame.studies(project / "results"):
        for run in study.every_run:
            found = histograms.load(run.path("histograms.npz"))
            low, high = found.edges[:-1], found.edges[1:]
            with run.path("cases.csv").open(newline="") as file:
                scores = {
                    tuple(row[k] for k in ("split", "region", "reference", "case",
                                           "target")): float(row["brier"])
                    for row in csv.DictReader(file)
                }  # fmt: skip
            for index, counts in enumerate(found.counts):
                key = tuple(
                    str(getattr(found, k)[index])
                    for k in ("split", "region", "reference", "case", "target")
                )
                n = counts.sum()
                least = (counts[0] @ low**2 + counts[1] @ (1 - high) ** 2) / n
                most = (counts[0] @ high**2 + counts[1] @ (1 - low) ** 2) / n
                assert least - 1e-8 <= scores[key] <= most + 1e-8
                checked += 1
    assert checked


def test_damaged_histograms_are_named(tmp_path, images):
    make_run(tmp_path, images, "CE")
    path = tmp_path / "drive" / "reduced" / "runs" / "ce-s0" / "histograms.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="expected the histograms of a run"):
        pages.Report(tmp_path).write()


def test_drawn_diagrams_equal_the_table(written):
    found = frame.open_study(written / "drive" / "reduced")
    rows = read(written, "reliability.csv")
    with style.drawing():
        axes = curves.reliability(found).axes
    # A panel each of the losses of Table 4 that was run, of the whole image.
    assert [axis.get_title("left") for axis in axes] == [*LOSSES]
    for axis in axes:
        where = {"loss": axis.get_title("left"), "region": "image"}
        where["reference"] = "observer1"
        table = [
            (float(r["confidence"]), float(r["frequency"]))
            for r in rows
            if r["n_voxels"] != "0" and all(r[k] == v for k, v in where.items())
        ]
        lines = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
        np.testing.assert_allclose(lines[where["loss"]], table, atol=2e-5)
        # The diagonal, a line a case, and all together: faded, and where enough lie.
        assert len(lines) == 3 + len(CASES)
        assert axis.get_box_aspect() == 1
        ece = one(read(written, "calibration.csv"), measure="ece", **where)
        assert f"ECE {float(ece['pooled']):.3f}" in axis.texts[0].get_text()


def test_the_interval_of_a_bin_takes_a_case_as_the_unit():
    # With as many voxels in each case it is Student's interval of the cases' shares.
    n, target = np.full((6, 1), 50.0), np.array([[5.0], [9], [7], [12], [4], [8]])
    bins = Bins(n, target, np.zeros_like(n))
    shares = target[:, 0] / 50
    of_mean = stats.t.interval(0.95, 5, shares.mean(), stats.sem(shares))
    assert calibration_tables.frequency_interval(bins)[:, 0] == pytest.approx(of_mean)
    # By hand: 10 of 20 and 20 of 80. R = 0.3; residuals 4 and -4 of 100 voxels;
    # error sqrt(2 * 32) / 100 = 0.08; t with one degree of freedom 12.706: cut at 0, 1.
    two = Bins(np.array([[20.0], [80]]), np.array([[10.0], [20]]), np.zeros((2, 1)))
    assert calibration_tables.frequency_interval(two).tolist() == [[0], [1]]
    three = Bins(*(np.vstack([part, [[0.0]]]) for part in (two.n, two.target, two.n)))
    assert calibration_tables.frequency_interval(three).tolist() == [
        [0],
        [1],
    ]  # as before
    alone = Bins(np.array([[20.0]]), np.array([[10.0]]), np.zeros((1, 1)))
    assert np.isnan(calibration_tables.frequency_interval(alone)).all()


def test_many_cases_are_drawn_as_percentiles(written, monkeypatch):
    monkeypatch.setattr(curves, "_MANY", 2)
    found = frame.open_study(written / "drive" / "reduced")
    row = next(
        row
        for row in read(written, "reliability.csv")
        if row["reference"] == "observer1"
        and float(row["frequency_p10"] or 1) < float(row["frequency_p90"] or 0)
    )
    assert (row["loss"], row["region"]) == ("CE", "image")
    with style.drawing():
        axis = curves.reliability(found).axes[0]
    band, _ = axis.collections  # and the intervals
    (outline,) = band.get_paths()
    ends = [float(row[f"frequency_p{q}"]) for q in (10, 90)]
    x = float(row["confidence"])
    drawn = [y for at, y in outline.vertices if abs(at - x) < 2e-5]
    assert [min(drawn), max(drawn)] == pytest.approx(ends, abs=2e-5)
    assert len(axis.get_lines()) == 3


def test_calibration_text_equals_the_table(written):
    page = pages.Page(frame.open_study(written / "drive" / "reduced"))
    said = page.topic("calibration")
    rows = read(written, "calibration.csv")
    where = {"loss": "DSC", "region": "band", "reference": "observer1"}
    cells = {
        name: one(rows, measure=name, **where) for name in ("ece", "ace", "resolution")
    }
    (line,) = [line for line in said.splitlines() if line.startswith("| DSC |")]
    for name, digits in (("ece", 3), ("ace", 3), ("resolution", 4)):
        assert f"| {float(cells[name]['mean']):.{digits}f} ± " in line
    assert "Region: band unless stated." in said
    said = page.topic("observers")
    rows = read(written, "observers.csv")
    dice = one(rows, **HUMAN, region="image", measure="dice")
    assert f"the second has Dice {float(dice['mean']):.3f} ± " in said
    p = one(rows, loss="DSC", region="image", measure="mean_p_one")
    (line,) = [line for line in said.splitlines() if line.startswith("| DSC |")]
    assert line.split(" | ")[4] == f"{float(p['mean']):.2f}"
