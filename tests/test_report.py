"""The HTML report: what it shows equals the tables, and its pictures their figures."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pandas as pd
import pytest
import test_illustrate
import tiny_volumes
import written_runs
from PIL import Image

from data_io.datasets import by_name, phantom
from data_io.errors import InputError
from data_io.own_images import describe
from pipelines import cli, stages
from pipelines.measure import metrics
from pipelines.measure.metrics import overlap_scores
from pipelines.prediction.judge import judge
from pipelines.report import explorer, page
from pipelines.reporting.pages import Report
from pipelines.runs.run import Run

MARKUP = '<img src=x onerror="alert(1)">'
VOID = {"meta", "img", "input"}
METRICS = ("precision", "recall", "dice")


class Parsed(HTMLParser):
    """Elements with their attributes; `open` has those that were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open[-3:])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    settings = phantom.Settings(training=1, validation=1, test=4, size=32)
    return phantom.generate(settings, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    return tiny_volumes.write(tmp_path_factory.mktemp("raw") / "kits19" / "data")


@pytest.fixture(scope="module")
def results(tmp_path_factory, phantoms, volumes) -> Path:
    """Runs of DRIVE without probabilities; of phantoms and of volumes with them."""
    results = tmp_path_factory.mktemp("runs") / "results"
    nll = {"DSC": written_runs.DSC_NLL, "DSC++": written_runs.PLUS_NLL}
    for loss, gamma in (("DSC", None), ("DSC++", 2.0)):
        written_runs.make_run(
            results,
            loss,
            nll[loss],
            gamma=gamma,
            targets=[MARKUP],
            classes=["background", MARKUP],
        )
        test_illustrate.make_run(results, phantoms, loss, gamma, noise=0.9)
    made = test_illustrate.make_run(
        results, volumes, "DSC++", dataset="kits19", noise=0.9
    )
    history = "epoch,loss,val_loss,learning_rate\n1,0.5,0.4,0.1\n2,0.4,0.2,0.1\n"
    made.path("history.csv").write_text(history)
    return results


def shown(results: Path, *data: Path) -> dict[str, Any]:
    """What the explorer has of all runs."""
    report = Report(results)
    found = explorer.data(report.pages, located(results, *data))
    assert json.loads(json.dumps(found)) == found
    return found


def located(results: Path, *data: Path) -> explorer.Locate:
    """What finds the images of a run among these folders."""

    def locate(run: Run) -> Path:
        at = 1 if run.record["dataset"] == "kits19" else 0
        return stages.located(run, data[at], results / "work")

    return locate


@pytest.fixture(scope="module")
def written(results, phantoms, volumes, tmp_path_factory) -> Path:
    report = Report(results)
    report.write()
    path = tmp_path_factory.mktemp("page") / "report.html"
    locate = located(results, phantoms, volumes)
    return page.write(page.html(report, report.pages, locate), path)


def test_one_well_formed_file_that_needs_no_other(written):
    text = written.read_text()
    assert text.startswith("<!doctype html>")
    assert len(text.encode()) < page.LIMIT
    found = Parsed(text)
    assert found.open == []
    for tag, given in found.found:
        assert tag not in ("link", "iframe", "object")
        address = given.get("src") or given.get("href") or "#"
        assert address.startswith(("#", "data:image/")), (tag, address[:80])
    ids = [given["id"] for _, given in found.found if "id" in given]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_page_of_the_committed_runs_has_their_values(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where phantoms are made

    def nowhere(run: Run) -> Path:
        raise InputError("no images of patients in this test")

    report = Report(project / "results")
    made = page.html(report, report.pages, nowhere)
    output = page.write(made, tmp_path / "report.html")
    text = output.read_text()
    assert Parsed(text).open == []
    entries = kept(text)["entries"]
    shown = [(one, t) for one in report.pages for t in one.study.targets]
    means = sum(len(one.study.main) for one, _ in shown)
    assert check_means(entries, project / "results") == means
    assert len(re.findall(r"<h3>[1-6]\. ", text)) == 6


def test_names_with_markup_are_shown_as_text(written):
    text = written.read_text()
    assert MARKUP not in text
    assert "&lt;img src=x onerror=" in text
    parsed = Parsed(text).found
    assert not any("onerror" in given for _, given in parsed)


def test_a_run_with_a_history_has_a_learning_curve(written, results):
    panels = [given for _, given in Parsed(written.read_text()).found]
    runs = [one["data-run"] for one in panels if "data-run" in one]
    (history,) = results.rglob("history.csv")
    assert runs == [history.parent.name]


def test_means_equal_the_tables(written, results, phantoms, volumes):
    found = shown(results, phantoms, volumes)["entries"]
    assert check_means(found, results) == 2 * 2 + 2


def check_means(entries: list[dict[str, Any]], results: Path) -> int:
    """Compare the means of all test images with the CSVs; how many there are."""
    means = [one for one in entries if one["case"] == explorer.ALL]
    folders = {folder_of(one, results) for one in means}
    assert len(folders) == len({one["dataset"] for one in means})
    tables = {
        (folder, name): pd.read_csv(folder / name)
        for folder in folders
        for name in ("thresholds.csv", "practice.csv")
    }
    for entry in means:
        folder = folder_of(entry, results)
        own = of_entry(tables[folder, "thresholds.csv"], entry)
        for metric in METRICS:
            rows = own[own["metric"] == metric]
            for column in ("mean", "ci_low", "ci_high"):
                values = np.array(entry[metric][column], float)
                np.testing.assert_allclose(values, rows[column], rtol=1e-5)
        practice = of_entry(tables[folder, "practice.csv"], entry)
        bias = practice.set_index("measure").loc["volume_expected", "mean"]
        assert entry["expected"] == pytest.approx(1 + bias, rel=1e-4)
    return len(means)


def folder_of(entry: dict[str, Any], results: Path) -> Path:
    """The folder of the runs that an entry of the explorer is about."""
    title, _, preset = entry["dataset"].partition(", preset ")
    for path in sorted(results.glob(f"*/{preset}/runs/*/run.json")):
        if json.loads(path.read_text())["title"] == title.partition(" (SIM")[0]:
            return path.parents[2]
    raise AssertionError(entry["dataset"])


def of_entry(table: pd.DataFrame, entry: dict[str, Any]) -> pd.DataFrame:
    """The rows of a table that an entry of the explorer is about."""
    own = table[table["method"].isna() & (table["target"] == entry["target"])]
    loss, _, gamma = entry["loss"].partition(" g=")
    plain = 2.0 if loss.endswith("++") else np.nan
    exponent = own["gamma"].fillna(-1) == np.nan_to_num(float(gamma or plain), nan=-1)
    return own[(own["loss"] == loss) & exponent]


def unpacked(text: str, shape) -> np.ndarray:
    found = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(found, np.uint8).reshape(shape)


def kept(text: str) -> dict[str, Any]:
    """What the explorer of a page has."""
    found = re.search(r'id="explorer-data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def check_pictures(found: dict[str, Any]) -> int:
    """Measure the pixels of each picture anew; how many there are."""
    pictures = [entry for entry in found["entries"] if "scene" in entry]
    for entry in pictures:
        scene = found["scenes"][entry["scene"]]
        p, label = (unpacked(t, scene["shape"]) for t in (entry["p"], scene["labels"]))
        true = label == entry["index"]
        for at in range(19):
            positive = p >= found["subdivisions"] * (at + 1)
            parts = (positive & true, positive & ~true, true & ~positive)
            scores = overlap_scores(*map(np.count_nonzero, parts))
            for metric in METRICS:
                value = np.array(entry[metric]["mean"][at], float)
                np.testing.assert_allclose(value, scores[metric], rtol=1e-5)
            volume = positive.sum() / true.sum()
            assert entry["volume"]["mean"][at] == pytest.approx(volume, rel=1e-5)
        total = ((p + 0.5) / len(found["heat"])).sum() / true.sum()
        slack = p.size / len(found["heat"]) / true.sum()
        assert entry["expected"] == pytest.approx(total, abs=slack)
    return len(pictures)


def test_pictures_come_with_their_measures(results, phantoms, volumes):
    found = shown(results, phantoms, volumes)
    found["entries"] = [e for e in found["entries"] if "KiTS" not in e["dataset"]]
    assert check_pictures(found) == 2 * 3
    (dice,) = {
        tuple(one["dice"]["mean"]) for one in found["entries"]
        if "lowest" in one["case"] and one["loss"] == "DSC++" and "scene" in one
    }  # fmt: skip
    run = Run.open(results / "phantom" / "reduced" / "runs" / "dscpp-s0")
    rows = pd.read_csv(run.path("cases.csv"))
    rows = rows[(rows["split"] == "test") & (rows["region"] == "image")]
    assert dice[9] == pytest.approx(rows["dice"].min(), rel=1e-5)
    scene = next(s for s in found["scenes"].values() if not s["slices"])
    image = base64.b64decode(scene["images"][0].partition(",")[2])
    assert Image.open(io.BytesIO(image)).size == (32, 32)


def test_page_without_probabilities_shows_simulated_images_and_says_so(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom, "PHANTOM", phantom.Settings(1, 1, 3, 32))
    results = tmp_path / "results"
    written_runs.make_run(results, "DSC")
    found = shown(results, tmp_path)
    assert check_pictures(found) == 3 * 2
    first = found["entries"][0]
    assert "SIMULATED" in first["dataset"]
    assert "no network, no patient" in first["note"]
    others = [one for one in found["entries"] if one.get("p") is None]
    assert any("not on this machine; git has none" in one["note"] for one in others)


def test_volumes_are_shown_slice_by_slice(results, volumes):
    run = Run.open(results / "kits19" / "reduced" / "runs" / "dscpp-s0")
    case = run.record["split"]["test"][0]
    locate = test_illustrate.locate(volumes, results / "work")
    pictures, scene = explorer._read({"DSC++": run}, locate(run), case)
    label = by_name("kits19").references(volumes, case)["observer1"]
    slices = scene["slices"]
    there = np.flatnonzero(label.any(axis=(1, 2)))
    assert (slices[0], slices[-1]) == (there[0], there[-1])
    assert slices[scene["first"]] == (label > 0).sum(axis=(1, 2)).argmax()
    assert scene["shape"] == [len(slices), *label.shape[1:]]
    assert scene["aspect"] == 1.5 / 2
    labels = unpacked(scene["labels"], scene["shape"])
    np.testing.assert_array_equal(labels, label[slices])
    np.testing.assert_array_equal(pictures["DSC++"].argmax(-1), label[slices])
    assert len(scene["images"]) == len(slices)


def test_every_threshold_is_exact_in_a_byte():
    edges = np.arange(1, 20) / 20
    near = [np.nextafter(edges, 0), edges, np.nextafter(edges, 1), [0, 1, 0.5]]
    p = np.concatenate([*near, edges.astype(np.float32)])
    p = np.concatenate([p, np.random.default_rng(0).random(1000)])
    found = explorer.code(p)
    for number, edge in enumerate(edges, start=1):
        at_least = found >= explorer.SUBDIVISIONS * number
        np.testing.assert_array_equal(at_least, p >= edge)
    assert found.max() == 20 * explorer.SUBDIVISIONS - 1
    assert np.abs((found + 0.5) / 240 - p).max() <= 0.5 / 240 + 1e-6


def test_large_image_is_subsampled_with_a_note(monkeypatch):
    monkeypatch.setattr(explorer, "_PIXELS", 100)
    label = np.arange(1200).reshape(1, 30, 40) % 2
    p = np.zeros((1, 30, 40, 2))
    thin, scene = explorer._thinned({"CE": p}, label, [np.zeros((30, 40), np.uint8)])
    assert scene["step"] == 4
    assert scene["shape"] == [1, 8, 10]
    assert thin["CE"].shape == (1, 8, 10, 2)


def test_no_other_file_is_replaced(tmp_path, written):
    notes = tmp_path / "report.html"
    notes.write_text("<html>my notes</html>")
    with pytest.raises(InputError, match="expected no file, or an earlier report"):
        page.require_replaceable(notes)
    page.require_replaceable(written)
    page.require_replaceable(tmp_path / "new.html")
    with pytest.raises(InputError, match="name another --output"):
        page.require_replaceable(tmp_path)


def own_run(test: int = 2) -> Path:
    """A run on own images in the current folder, in `photos` and `labels`."""
    random = np.random.default_rng(0)
    for folder in ("photos", "labels"):
        Path(folder).mkdir()
    for case in "abcdefgh"[: 2 + test]:
        label = np.zeros((24, 32), np.uint8)
        label[6:18, 8 : 20 + ord(case) % 4] = 255
        noise = random.integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(noise).save(f"photos/{case}.png")
        Image.fromarray(label).save(f"labels/{case}.png")
    root = describe.describe(Path("photos"), Path("labels"), Path(".work")).root
    run = test_illustrate.make_run(
        Path("results"), root.absolute(), "DSC++", dataset="own"
    )
    shutil.copytree(root, run.path("own-data"))
    return run.folder


def test_own_images_with_their_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_run()
    capsys.readouterr()
    command = "report --images photos --masks labels --output my-report.html"
    assert cli.main(command.split()) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines()[-1] == "my-report.html"
    text = Path("my-report.html").read_text()
    found = kept(text)
    assert check_pictures(found) == 2
    assert not any("SIMULATED" in one["dataset"] for one in found["entries"])
    # A run that is named is looked for nowhere else.
    run = "results/own/reduced/runs/dscpp-s0"
    assert cli.main(["report", run, "--output", "my-report.html"]) == 0
    assert cli.main(["report", "--images", "photos", "--masks", "labels",
                     "--name", "other"]) == 2  # fmt: skip
    assert "expected evaluated runs in own-other/" in capsys.readouterr().err


def test_card_has_measures_and_limits_of_use(results, written, capsys):
    folder = results / "phantom" / "reduced" / "runs" / "dscpp-s0"
    assert cli.main(["card", str(folder), "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "**Not for clinical decisions**" in text
    assert "**The images are simulated.**" in text
    table = pd.read_csv(results / "phantom" / "reduced" / "table.csv")
    own = table[(table["loss"] == "DSC++") & (table["metric"] == "dice")].iloc[0]
    name = own["target"]
    assert re.search(rf"^\| {name}: dice \| {own['mean']:#.4g} \|", text, re.MULTILINE)
    assert "1 training, 1 validation and 4 test cases" in text
    assert "ECE" in text
    assert "Not measured on any other set of images." in text


def test_card_shows_names_with_markup_as_text(results, capsys):
    folder = results / "drive" / "paper" / "runs" / "dsc-s0"
    assert cli.main(["card", str(folder), "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "into background, &lt;img src=x" in text
    assert "<img" not in text
    assert "The images are simulated" not in text


def test_card_of_an_unmeasured_run_is_refused(tmp_path, phantoms, capsys):
    run = test_illustrate.make_run(tmp_path, phantoms, "DSC")
    run.update(state="predicted")
    assert cli.main(["card", str(run.folder)]) == 2
    assert "dscpp evaluate --run" in capsys.readouterr().err


def judged(tmp_path: Path) -> Path:
    """The run folder of probabilities that `dscpp judge` measured."""
    for name in ("p", "labels"):
        (tmp_path / name).mkdir()
    label = np.zeros((16, 16), np.uint8)
    label[4:9, 4:12] = 1
    for case in ("a", "b"):
        np.save(tmp_path / "p" / f"{case}.npy", 0.1 + 0.7 * label)
        Image.fromarray(255 * label).save(tmp_path / "labels" / f"{case}.png")
    judge(tmp_path / "p", tmp_path / "labels", tmp_path / "out", "l3")
    return tmp_path / "out" / "runs" / "l3"


def test_no_card_of_judged_probabilities(tmp_path, capsys):
    assert cli.main(["card", str(judged(tmp_path))]) == 2
    said = capsys.readouterr()
    assert "that `dscpp judge` measured" in said.err
    assert str(tmp_path / "out" / "table.csv") in said.err
    assert said.out == ""


def test_card_of_an_older_run(tmp_path, capsys):
    folder = written_runs.make_run(tmp_path / "results", "DSC")
    record = json.loads((folder / "run.json").read_text())
    for key in ("data_hash", "commit", "overrides", "gamma", "method"):
        del record[key]
    record["split"] = {"test": record["split"]["test"]}
    (folder / "run.json").write_text(json.dumps(record))
    assert cli.main(["card", str(folder)]) == 0, capsys.readouterr().err
    assert "SHA-256 of the data: not recorded." in capsys.readouterr().out


@pytest.mark.parametrize(
    "key", ["title", "preset", "loss", "seed", "backend", "split", "test", "state"]
)
def test_no_card_of_a_shortened_run(key, tmp_path, capsys):
    folder = written_runs.make_run(tmp_path / "results", "DSC")
    record = json.loads((folder / "run.json").read_text())
    del (record["split"] if key == "test" else record)[key]
    (folder / "run.json").write_text(json.dumps(record))
    assert cli.main(["card", str(folder)]) == 2
    said = capsys.readouterr()
    assert f"{folder / 'run.json'}: expected" in said.err
    assert re.search(rf"\bno .*{key}", said.err)
    assert said.out == ""


@pytest.mark.parametrize("dataset", ["drive", "own-clinic"])
def test_card_of_a_run_with_overrides_prints_them(dataset, tmp_path, capsys):
    changed = {"epochs": 3, "input_shape": [64, 64]}
    folder = written_runs.make_run(
        tmp_path / "results", "DSC", dataset=dataset, overrides=changed
    )
    assert cli.main(["card", str(folder)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.replace("\\", "")
    assert "differ from the preset's: epochs=3, input_shape=[64,64]." in said


def test_card_shows_names_as_they_are(tmp_path, capsys):
    """In a title, in a list and in a table: one escape, and none of plain names."""
    name = "it's R&D *a* [l](http://e)|b\n# c &lt; <b> left_kidney __d_ `e`"
    shown = (
        r"it's R&D \*a\* \[l\](http://e)\|b # c \&lt; &lt;b> left_kidney \_\_d\_ \`e\`"
    )
    folder = written_runs.make_run(
        tmp_path / "results",
        "DSC",
        title=name,
        targets=[name],
        classes=["background", name],
    )
    assert cli.main(["card", str(folder)]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    assert text.startswith(f"# Model card: DSC on {shown}\n")
    assert f"into background, {shown}." in text
    assert f"\n| {shown}: dice |" in text
    assert f"\n| {shown}, image: ECE |" in text
    assert "&#39;" not in text and "&amp;" not in text


@pytest.mark.parametrize("targets", [["cup"], ["cup", "disc"]])
def test_card_lists_measures_over_all_classes_once(targets, tmp_path, capsys):
    folder = written_runs.make_run(tmp_path / "results", "DSC", targets=targets)
    assert cli.main(["card", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "categorical" not in text
    assert text.count("| all classes together: nll |") == len(targets) - 1
    assert text.count("| all classes together: brier |") == len(targets) - 1
    assert all(text.count(f"| {name}: nll |") == 1 for name in targets)


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_card_names_the_fitted_temperature_and_gamma_only_where_it_applies(
    method, tmp_path, capsys
):
    posthoc = {"run": "dsc-s0"} | ({"temperature": 1.5} if method[0] == "t" else {})
    folder = written_runs.make_run(
        tmp_path / "results", "DSC", gamma=1.0, method=method, posthoc=posthoc
    )
    assert cli.main(["card", str(folder)]) == 0
    text = capsys.readouterr().out
    number = " 1.5" if method[0] == "t" else ""
    assert f"After training: {method}{number}, fitted on the validation cases." in text
    assert "gamma" not in text


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"seen": ["01", "02"]}, "2 of 4 images were among the training's"),
        ({"seen": []}, "0 of 4 images were among the training's"),
        ({"seen": None}, "it is not known whether its images were among the"),
        ({}, "it is not known whether its images were among the"),
    ],
)
def test_card_says_whether_another_set_was_used_in_training(
    about, said, tmp_path, capsys
):
    folder = written_runs.make_run(tmp_path / "results", "DSC")
    other = folder / "other-sets" / "clinic-b"
    other.mkdir(parents=True)
    columns = dict.fromkeys(metrics.METRICS, (0.5, 0.6, 0.7, 0.8))
    written_runs.write_cases(other / "cases.csv", {"loss": "DSC"}, columns, ["vessel"])
    written = {"set": "clinic-b", "cases": list(written_runs.CASES), **about}
    (other / "set.json").write_text(json.dumps(written))
    assert cli.main(["card", str(folder)]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    assert "| clinic-b, vessel: dice |" in text
    assert f"- clinic-b: {said}" in text
    assert ("this was not measured" in text) == (about.get("seen") != [])


def test_nothing_is_written_when_data_are_unusable(results, tmp_path, capsys):
    run = results / "phantom" / "reduced" / "runs" / "dscpp-s0"
    output, data = tmp_path / "report.html", tmp_path / "none"
    data.mkdir()
    command = ["report", run, "--data", data, "--output", output, "--work", tmp_path]
    assert cli.main([str(part) for part in command]) == 2
    assert f"--data {data}: expected the images" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda path: path.unlink(), 2),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), 2),
        (lambda path: path.parent.rename("elsewhere"), 0),
    ],
    ids=["gone", "damaged", "moved"],
)
@pytest.mark.parametrize("folder", ["photos", "labels"])
def test_damaged_own_images_are_skipped_with_a_warning(
    folder, change, left, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    run = own_run(test=3)
    change(Path(folder) / "d.png")
    capsys.readouterr()
    assert cli.main(["report", str(run)]) == 0
    said = capsys.readouterr().err.splitlines()
    reasons = [line for line in said if line.startswith("dscpp: warning: not every")]
    assert len(reasons) == len(set(reasons)) > 0
    assert any(str(run) in one for one in reasons)
    if left:
        assert any(f"{folder}/d.png" in one for one in reasons)
    found = kept(Path("report.html").read_text())
    assert check_pictures(found) == left
    assert not any("SIMULATED" in one["dataset"] for one in found["entries"])
    notes = [one["note"] for one in found["entries"] if "scene" in one]
    assert all("not compared with the training's" in note for note in notes)


def test_changed_label_map_is_not_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = own_run(test=3)
    pixels = np.array(Image.open("labels/d.png"))
    Image.fromarray(np.roll(pixels, 1) | pixels).save("labels/d.png")
    Image.new("RGB", (9, 9)).save("photos/e.png")
    assert cli.main(["report", str(run)]) == 0
    said = capsys.readouterr().err
    assert "case d: expected the label map that" in said
    assert "case e: expected an image of its label map's size" in said
    assert check_pictures(kept(Path("report.html").read_text())) == 1


def test_no_simulated_image_beside_named_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = written_runs.make_run(tmp_path / "results", "DSC")
    for named, why in (
        (run, "the probabilities are not on this machine; git has none"),
        (judged(tmp_path), "`dscpp judge` keeps no probabilities"),
    ):
        assert cli.main(["report", str(named)]) == 0, capsys.readouterr().err
        assert capsys.readouterr().err.count(why) == 1
        found = kept(Path("report.html").read_text())
        assert found["scenes"] == {}
        assert not any("SIMULATED" in one["dataset"] for one in found["entries"])
        assert any(why in one["note"] for one in found["entries"])


def test_page_of_judged_probabilities_does_not_mention_training(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(judged(tmp_path))]) == 0, capsys.readouterr().err
    text = Path("report.html").read_text()
    said = text.partition('<script type="application/json"')
    said = re.sub("<[^>]*>", "", said[0] + said[2])
    assert "labels: 2 test images, 1 set of probabilities that another program" in said
    assert "dscpp judge measures every case" in said
    assert "Nothing was trained." in said
    for wrong in ("preset", "dscpp train", "dscpp evaluate", "segmentation losses gi"):
        assert wrong not in said.replace("Segmentation losses and", "")
    assert all(one["dataset"] == "labels" for one in kept(text)["entries"])


def test_page_counts_trained_and_scaled_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plain = written_runs.make_run(
        Path("results"), "DSC", dataset="own-a", overrides={"epochs": 3}
    )
    assert cli.main(["report", str(plain)]) == 0, capsys.readouterr().err
    text = Path("report.html").read_text()
    assert "</strong>: 4 test images, 1 run</li>" in text
    assert "<p>1 run, 0.0 hours of training in all.</p>" in text
    assert "<td>epochs=3</td>" in text
    scaled = written_runs.make_run(
        Path("results"), "DSC", dataset="own-a", overrides={"epochs": 3},
        method="isotonic", posthoc={"run": "dsc-s0"},
    )  # fmt: skip
    assert cli.main(["report", str(plain), str(scaled)]) == 0
    text = Path("report.html").read_text()
    assert "2 runs (those after temperature scaling or another method cou" in text


def test_without_runs_the_message_names_the_command(tmp_path, capsys):
    output = tmp_path / "report.html"
    command = ["report", "--results", str(tmp_path), "--output", str(output)]
    assert cli.main(command) == 2
    assert "name a run where the command takes one, such as `dscpp report RUN`" in (
        capsys.readouterr().err
    )
    assert not output.exists()


def test_a_scaled_run_alone_needs_the_run_it_was_made_from(tmp_path, capsys):
    results, posthoc = tmp_path / "results", {"run": "dsc-s0"}
    written_runs.make_run(results, "DSC")
    scaled = written_runs.make_run(results, "DSC", method="beta", posthoc=posthoc)
    assert cli.main(["card", str(scaled), "--results", str(results)]) == 0
    assert cli.main(["report", str(scaled), "--output", str(tmp_path / "r.html")]) == 2
    assert f"name {scaled.with_name('dsc-s0')} too" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed")
def test_slider_works_in_a_browser(written, results, tmp_path):
    chromium = browser.Browser(tmp_path / "profile")
    try:
        chromium.look(1200)
        chromium.open(written)
        place = "document.querySelector('[data-explorer]')"
        chromium.wait(f"{place}.dataset.drawn")
        choose_all_images(chromium)
        table = pd.read_csv(results / "phantom" / "reduced" / "thresholds.csv")
        chromium.run(f"{place}.querySelector('[data-threshold]').focus()")
        for key, at in (("ArrowRight", 0.55), ("Home", 0.05), ("End", 0.95)):
            chromium.press(key)
            check_figures(chromium, table, at)
        check_pointer(chromium, table)
        check_canvas(chromium)
        check_slices(chromium)
        check_sorting(chromium)
        for width, scheme in ((1200, "dark"), (400, "light"), (400, "dark")):
            chromium.look(width, scheme)
            assert chromium.run("document.documentElement.scrollWidth") <= width
        assert chromium.errors == []
    finally:
        chromium.close()


def choose(chromium: browser.Browser, field: str, value: str) -> None:
    chromium.run(
        "(() => { const select = document.querySelector("
        f"'[data-choices] [data-field={field}]');"
        "select.value = [...select.options].map((one) => one.value)"
        f".find((one) => one.includes({json.dumps(value)}));"
        "select.dispatchEvent(new Event('change')); })()"
    )


def choose_all_images(chromium: browser.Browser) -> None:
    for field, value in (("dataset", "phantom"), ("case", "all"), ("loss", "DSC++")):
        choose(chromium, field, value)


def text_of(chromium: browser.Browser, metric: str) -> str:
    return chromium.run(f"document.querySelector('[data-of={metric}]').textContent")


def check_figures(chromium: browser.Browser, table: pd.DataFrame, at: float) -> None:
    assert chromium.run("document.querySelector('[data-at]').value") == f"{at:.2f}"
    own = table[(table["loss"] == "DSC++") & np.isclose(table["threshold"], at)]
    for row in own.to_dict("records"):
        wanted = "{mean:.3f} [{ci_low:.3f}, {ci_high:.3f}]".format(**row)
        if row["mean"] != row["mean"]:
            wanted = "undefined"
        assert text_of(chromium, row["metric"]).startswith(wanted), row


def check_pointer(chromium: browser.Browser, table: pd.DataFrame) -> None:
    """A click in the middle of the slider is threshold 0.5."""
    box = chromium.run(
        "(() => { const at = document.querySelector('[data-threshold]');"
        "at.scrollIntoView(); const box = at.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    chromium.click(*box)
    check_figures(chromium, table, 0.5)


def check_canvas(chromium: browser.Browser) -> None:
    """The coloured pixels give the figures that stand beside them."""
    choose(chromium, "case", "median")
    chromium.wait("document.querySelector('[data-explorer]').dataset.drawn")
    pixels = chromium.run(
        "(() => { const canvas = document.querySelector('[data-canvas]');"
        "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width,"
        "canvas.height).data]; })()"
    )
    rgba = [tuple(one) for one in np.reshape(pixels, (-1, 4)).tolist()]
    tp, fp = rgba.count((255, 255, 255, 255)), rgba.count((255, 0, 255, 255))
    fn = rgba.count((0, 200, 0, 255))
    assert tp > 0
    assert tp + fp + fn + rgba.count((0, 0, 0, 0)) == 32 * 32
    for metric, value in overlap_scores(tp, fp, fn).items():
        if metric in METRICS:
            assert text_of(chromium, metric) == f"{value:.3f}"


def check_slices(chromium: browser.Browser) -> None:
    """Another slice of a volume is drawn where its slider is moved by keyboard."""
    choose(chromium, "dataset", "KiTS19")
    choose(chromium, "case", "median")
    seen = []
    for key in ("Home", "End"):
        chromium.wait("document.querySelector('[data-explorer]').dataset.drawn")
        chromium.run("document.querySelector('[data-slice]').focus()")
        chromium.press(key)
        chromium.wait("document.querySelector('[data-explorer]').dataset.drawn")
        at = "document.querySelector('[data-slice-at]').value"
        pixels = "document.querySelector('[data-canvas]').toDataURL()"
        seen.append((int(chromium.run(at)), chromium.run(pixels)))
    assert seen[0][0] < seen[1][0]
    assert seen[0][1] != seen[1][1]


def check_sorting(chromium: browser.Browser) -> None:
    """A table is sorted by the numbers of a column, up and then down."""
    script = (
        "(() => { const table = document.querySelector('#costs table');"
        "const at = [...table.tHead.rows[0].cells].findIndex("
        "(one) => one.textContent === 'evaluate s');"
        "table.tHead.rows[0].cells[at].querySelector('button').click();"
        "const rows = [...table.tBodies[0].rows];"
        "return rows.map((row) => row.cells[at].textContent); })()"
    )
    up, down = chromium.run(script), chromium.run(script)
    known = [float(one) for one in up if one]
    assert known == sorted(known)
    assert [float(one) for one in down if one] == known[::-1]
