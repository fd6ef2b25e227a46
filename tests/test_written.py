"""Commands replace what they wrote, unchanged, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from written_runs import make_run

from conformance.__main__ import main as conformance
from data_io.datasets import folder
from data_io.errors import InputError
from data_io.verification.report import Report
from pipelines import stages
from pipelines.cli import main
from pipelines.environment import backend
from pipelines.prediction import export, new_images, true_posterior
from pipelines.reporting.figures import photographs, style
from pipelines.runs import predictions, written
from pipelines.runs import run as runs

FOREIGN = b"a manual label"


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Path:
    """Images, a volume, label maps and a run that was trained on them."""
    monkeypatch.chdir(tmp_path)
    for place, names in {"in": ("a.png", "b.nii.gz"), "photos": ("a.png",)}.items():
        Path(place).mkdir()
        for name in names:
            Path(place, name).write_bytes(b"never decoded here")
    Path("labels").mkdir()
    Path("labels/a.nii.gz").write_bytes(FOREIGN)
    run = runs.Run.create(tmp_path / "run", {"dataset": "own", "split": {}})
    own = run.path(runs.OWN_DATA)
    own.mkdir()
    files = {"image": str(tmp_path / "photos" / "a.png")}
    files["observer1"] = str(tmp_path / "labels" / "a.nii.gz")
    about = {"format": 1, "name": "own", "title": "own", "classes": ["no", "yes"]}
    about["cases"] = {"a": files}
    about |= {"input_shape": [32, 32], "spacing_mm": None}
    (own / folder.ABOUT).write_text(json.dumps(about))
    reading = json.dumps({"channels": 1, "values": [0, 1]})
    (own / folder.READING).write_text(reading)
    run.path(runs.MODEL).touch()
    return tmp_path


class Reached(Exception):
    """Nothing was refused: a backend would be imported."""


def predict(output: str, images: str = "in", model: str = "run", **options) -> None:
    """`predict --model`, as far as it goes without a backend."""
    with pytest.MonkeyPatch.context() as patch:

        def reached(work: Path) -> None:
            raise Reached

        patch.setattr(backend, "start", reached)
        new_images.predict_images(
            Path(model), Path(images), Path(output), work=Path("work"), **options
        )


def snapshot(place: Path) -> dict[str, bytes]:
    files = (path for path in sorted(place.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def refused(scene: Path, output: str, match: str, **options) -> None:
    before = snapshot(scene)
    with pytest.raises(InputError, match=match):
        predict(output, **options)
    assert snapshot(scene) == before


@pytest.mark.parametrize(
    "name", ["a.png", "a.npy", "b.nii.gz", "b_probabilities.nii.gz"]
)
def test_label_that_predict_did_not_write_is_not_replaced(scene, name):
    Path("out").mkdir()
    Path("out", name).write_bytes(FOREIGN)
    refused(scene, "out", rf"out/{name}: expected no file", volume_probabilities=True)


@pytest.mark.parametrize("name", ["decision.json", "volumes.csv"])
def test_users_decision_file_is_not_replaced(scene, name):
    Path("out").mkdir()
    Path("out", name).write_bytes(FOREIGN)
    decision = {"classes": ["background", "foreground"]}
    refused(scene, "out", rf"out/{name}: expected no file", decision=decision)


def test_predict_does_not_overwrite_label_maps(scene, capsys):
    """`predict --model R --input in --output labels`: exit 0 and the label was gone."""
    Path("in/a.png").rename("in/a.nii.gz")
    (
        scene / "run" / runs.OWN_DATA / folder.ABOUT
    ).unlink()  # nor does the run know the folder
    command = ["predict", "--model", "run", "--input", "in", "--output", "labels"]
    assert main(command) == 2
    assert "labels/a.nii.gz: expected no file" in capsys.readouterr().err
    assert Path("labels/a.nii.gz").read_bytes() == FOREIGN


def test_earlier_predictions_are_replaced(scene):
    path = written.write(Path("out/a.png"), lambda aside: aside.write_bytes(b"1"))
    with pytest.raises(Reached):
        predict("out")
    path.write_bytes(b"corrected by hand")
    refused(scene, "out", r"out/a\.png: expected no file, or one that dscpp wrote")


def test_missing_images_or_model_are_named_by_their_options(scene):
    """`--images nowhere` was refused 12 s later, behind a backend."""
    with pytest.raises(InputError, match="--images nowhere: expected a folder or file"):
        predict("out", images="nowhere")
    with pytest.raises(InputError, match=r"^nowhere: expected a run folder"):
        predict("out", model="nowhere")
    assert not Path("out").exists()


def test_listed_name_that_became_a_link_is_refused(scene):
    path = written.write(Path("out/a.png"), lambda aside: aside.write_bytes(b"1"))
    path.rename("out/kept.png")
    path.symlink_to("kept.png")
    refused(scene, "out", r"out/a\.png: expected no file")
    path.unlink()
    path.symlink_to("nowhere")
    refused(scene, "out", r"out/a\.png: expected no file")


def test_hard_link_to_a_label_is_not_replaced(scene):
    Path("out").mkdir()
    os.link("labels/a.nii.gz", "out/b.nii.gz")
    refused(scene, "out", r"out/b\.nii\.gz: expected no file")


def test_list_that_is_a_link_is_refused(scene):
    Path("out").mkdir()
    Path("notes.txt").write_text("mine\n")
    Path("out", written.LIST).symlink_to(scene / "notes.txt")
    refused(scene, "out", rf"out/{written.LIST}: expected no file")


def test_two_predictions_of_one_name_are_refused(scene):
    Path("in/b_probabilities.nii.gz").write_bytes(b"")
    refused(scene, "out", "two of them", volume_probabilities=True)
    with pytest.raises(Reached):
        predict("out")


@pytest.mark.parametrize(
    "output",
    ["in", "in/", "./in/../in", "in/new", "in/new/deep", "to-in", "to-in/new",
     "photos", "photos/new", "labels", "labels/new", "run", "run/probabilities",
     "run/new"],
)  # fmt: skip
def test_output_in_folders_of_images_labels_or_runs_is_refused(scene, output):
    Path("to-in").symlink_to("in")
    refused(scene, output, "expected a folder apart from images, masks and runs")


def test_output_that_differs_only_in_case_is_refused(scene, monkeypatch):
    """Where case does not count, the file system says that two folders are one."""
    Path("IN").mkdir()
    real = Path.samefile

    def samefile(self: Path, other: Path) -> bool:
        return real(self, other) or str(self).lower() == Path(other).name.lower()

    monkeypatch.setattr(Path, "samefile", samefile)
    refused(scene, "IN", "expected a folder apart")


def test_output_below_the_folder_of_one_image_is_accepted(scene):
    with pytest.raises(Reached):
        predict("in/new", images="in/a.png")
    refused(scene, "in", "expected a folder apart", images="in/a.png")


def test_free_output_folders_are_accepted(scene):
    Path("run.json").write_text('{"of": "another program"}')
    for output in ("out", "deep/er/out", "in-predicted", "."):
        with pytest.raises(Reached):
            predict(output)


def test_file_of_a_killed_command_is_recognised(tmp_path):
    path = tmp_path / "a.png"
    written.write(path, lambda aside: aside.write_bytes(b"1"))
    real = Path.replace

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        written.write(path, lambda aside: aside.write_bytes(b"2"))
    written.require_own(tmp_path, ["a.png"])  # the old one
    assert Path.replace is real
    written.write(path, lambda aside: aside.write_bytes(b"3"))
    written.require_own(tmp_path, ["a.png"])
    assert len(written.known(tmp_path)["a.png"]) == 3
    with written.anew(tmp_path):
        written.write(path, lambda aside: aside.write_bytes(b"4"))
    assert len(written.known(tmp_path)["a.png"]) == 1
    written.require_own(tmp_path, ["a.png"])


def test_file_that_appears_during_the_command_is_not_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(FOREIGN)
    with pytest.raises(InputError, match="expected no file"):
        written.write(tmp_path / "a.png", lambda aside: aside.write_bytes(b"1"))
    assert (tmp_path / "a.png").read_bytes() == FOREIGN


def test_corrected_label_maps_of_a_run_are_not_replaced(tmp_path, capsys):
    split = {"training": ["t"], "validation": [], "test": ["a"]}
    run = runs.Run.create(tmp_path / "run", {"dataset": "kits19", "split": split})
    path = run.path("nifti") / "a.nii.gz"
    written.write(path, lambda aside: aside.write_bytes(b"1"))
    export.require_free(run)
    path.write_bytes(FOREIGN)
    command = ["predict", "--run", str(run.folder), "--nifti"]
    assert main(command) == 2
    assert "nifti/a.nii.gz: expected no file" in capsys.readouterr().err
    assert path.read_bytes() == FOREIGN


def test_other_files_among_probabilities_are_not_deleted(tmp_path):
    split = {"training": ["t"], "validation": [], "test": ["a"]}
    run = runs.Run.create(tmp_path / "run", {"dataset": "drive", "split": split})
    run.path("probabilities").mkdir()
    for name in ("a.npy", written.LIST):
        (run.path("probabilities") / name).write_bytes(b"")
    predictions.require_free(run)
    (run.path("probabilities") / "notes.txt").write_bytes(b"")
    with pytest.raises(InputError, match=r"notes\.txt, which would be deleted"):
        predictions.require_free(run)


@pytest.mark.parametrize("content", [FOREIGN, b"[]", b'{"title": 1}', b""])
def test_verification_report_replaces_no_other_file(tmp_path, capsys, content):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    command = ["verify", "--dataset", "drive", "--data", str(tmp_path), "--json"]
    assert main([*command, str(path)]) == 2
    assert "mine.json: expected no file, or an earlier" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_a_report_replaces_a_report(tmp_path):
    path = tmp_path / "report.json"
    for title in ("one", "two"):
        report = Report(title, tmp_path, {}).as_dict()
        written.require_report(path, report)
        runs.write_json(path, report)
    assert json.loads(path.read_text())["title"] == "two"


def test_conformance_report_replaces_no_other_file(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_bytes(FOREIGN)
    target = ["conformance.reference:dsc", "--loss", "DSC", "--json", str(path)]
    with pytest.raises(SystemExit, match="2"):
        conformance(target)
    assert path.read_bytes() == FOREIGN


def test_table_replaces_no_other_table(tmp_path):
    path = make_run(tmp_path).parents[1] / "tests.csv"
    path.write_text("patient,age\n1,70\n")
    assert main(["tables", "--results", str(tmp_path)]) == 2
    assert path.read_text() == "patient,age\n1,70\n"


def test_table_of_another_version_is_replaced(tmp_path):
    path = tmp_path / "tests.csv"
    runs.write_csv(path, ["metric", "loss", "old"], [])
    runs.write_csv(path, ["metric", "loss", "new", "newer"], [{"loss": "CE"}])
    assert path.read_text() == "metric,loss,new,newer\n,CE,,\n"


def test_damaged_measures_of_a_run_are_replaced(tmp_path):
    run = runs.Run.create(tmp_path / "run", {})
    run.path("cases.csv").write_text("")  # damaged
    runs.write_csv(run.path("cases.csv"), ["a"], [{"a": 1}])
    assert run.path("cases.csv").read_text() == "a\n1\n"


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figure_replaces_no_other_file(tmp_path, kind):
    results = tmp_path / "results"
    stem = results / "drive" / "paper" / "figures" / "reliability"
    with style.drawing():
        (path,) = style.save(Figure((1, 1)), stem, [kind])
    written.require_figures(results)  # its own are replaced
    path.write_bytes(FOREIGN)
    with pytest.raises(InputError, match=rf"reliability\.{kind}: expected no file"):
        written.require_figures(results)
    path.unlink()
    path.symlink_to(tmp_path / "mine")
    assert main(["figures", "--results", str(results)]) == 2
    assert path.is_symlink() and not (tmp_path / "mine").exists()


def test_picture_replaces_no_photo(tmp_path):
    path = tmp_path / "pictures" / "01.png"
    path.parent.mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"01\.png: expected no file, or a figure"):
        photographs._side_by_side({}, tmp_path, "01", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "record", [{"method": ""}, {"method": "temperature", "posthoc": {"run": "ce-s0"}}]
)
def test_scaling_replaces_no_other_run(tmp_path, record):
    common = {"dataset": "drive", "split": {}}
    run = runs.Run.create(tmp_path / "dsc-s0", common)
    run.update(state="predicted")
    other = runs.Run.create(tmp_path / "dsc-s0-temperature", {**common, **record})
    before = snapshot(other.folder)
    with pytest.raises(InputError, match="after temperature, found"):
        stages.scale(run.folder, None)
    assert snapshot(other.folder) == before


def test_true_posterior_replaces_no_other_run(tmp_path):
    group = make_run(tmp_path, dataset="phantom").parent.parent
    folder = group / "runs" / true_posterior.FOLDER
    other = runs.Run.create(folder, {"method": "", "split": {}})
    before = snapshot(other.folder)
    with pytest.raises(InputError, match="expected no run, or the truth"):
        true_posterior.measure(group, tmp_path)
    assert snapshot(other.folder) == before


def test_run_inside_own_images_is_refused(scene, capsys):
    from pipelines.training.task import Task

    root = scene / "run" / runs.OWN_DATA
    record = folder.own_images.record(folder.own_images.locate(root))
    task = Task.make("own", "DSC", preset="demo", record=record)
    for output in ("photos/run", "labels/run"):
        with pytest.raises(InputError, match="expected a folder apart from images"):
            stages.train(task, root, Path(output), scene / "work")
        assert not Path(output).exists()
