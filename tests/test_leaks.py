"""The audit of a split: planted leaks of each kind are found, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_io.datasets import phantom
from data_io.datasets.dataset import Dataset
from data_io.datasets.record import Record
from data_io.errors import InputError
from data_io.verification import images, leaks, verify
from data_io.verification.report import Report
from pipelines.cli import main

SPLIT = {"training": ("a1", "a2", "a3"), "validation": ("a4",), "test": ("a5", "b01")}
RECORD = Record(
    name="tiny", title="Tiny", classes=("background", "spot"), channels=3,
    input_shape=(32, 32), counts={}, raw_shape=None, source="", licence="",
    citation="", access="", layout="",
)  # fmt: skip


def picture(seed: int) -> np.ndarray:
    """Noise that no turn or mirror leaves as it is; uint8 (9, 7, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def module(root: Path, groups=None, split=SPLIT) -> Dataset:
    """A data set with six different images, each with an empty label beside it."""
    cases = [case for ids in split.values() for case in ids]
    for number, case in enumerate(cases):
        Image.fromarray(picture(number)).save(root / f"{case}.png")
        Image.fromarray(np.zeros((9, 7), np.uint8)).save(root / f"{case}-label.png")
    found = Dataset()
    found.RECORD = RECORD
    found.check = found.remarks = lambda root: []
    found.split = lambda root: split
    found.roles = lambda root, case: {
        "image": next(p for p in root.iterdir() if p.stem == case),
        "observer1": root / f"{case}-label.png",
    }
    found.groups = lambda root: groups or {}
    return found


def audited(dataset, root: Path) -> Report:
    report = verify.audit(dataset, root)
    leaks.audit(dataset, root, report, seed=0)
    return report


def found(report: Report) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(leak.kind, leak.cases, leak.parts) for leak in report.leaks]


def test_independent_cases_do_not_leak(tmp_path):
    report = audited(module(tmp_path), tmp_path)
    assert found(report) == [] and report.ok
    assert report.split == {"training": 3, "validation": 1, "test": 2}
    assert "3 training, 1 validation, 2 test: no leaks" in str(report)


def test_copy_under_another_name_is_a_leak(tmp_path):
    dataset = module(tmp_path)
    (tmp_path / "a5.png").write_bytes((tmp_path / "a2.png").read_bytes())
    report = audited(dataset, tmp_path)
    assert found(report) == [("bytes", ("a2", "a5"), ("training", "test"))]
    assert not report.ok
    assert "identical files: a2 (training), a5 (test). Put each" in str(report)


def rewritten(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def in_another_format(path: Path, pixels: np.ndarray) -> None:
    path.unlink()
    Image.fromarray(pixels).save(path.with_suffix(".tif"), compression="tiff_lzw")


def with_alpha(path: Path, pixels: np.ndarray) -> None:
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(path)


@pytest.mark.parametrize("write", [rewritten, in_another_format, with_alpha])
def test_same_pixels_in_another_file_are_a_leak(tmp_path, write):
    dataset = module(tmp_path)
    write(tmp_path / "a4.png", picture(0))
    assert (tmp_path / "a1.png").read_bytes() not in {
        path.read_bytes() for path in tmp_path.iterdir() if path.stem != "a1"
    }
    report = audited(dataset, tmp_path)
    assert found(report) == [("pixels", ("a1", "a4"), ("training", "validation"))]
    with pytest.raises(InputError, match=r"split: .* a1 \(training\), a4"):
        leaks.require(report)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_rotated_or_mirrored_copy_is_a_leak(tmp_path, turns, mirrored):
    pixels = np.rot90(picture(1), turns)
    pixels = pixels[:, ::-1] if mirrored else pixels
    assert images.turned_hash(pixels) == images.turned_hash(picture(1))
    assert images.turned_hash(pixels) != images.turned_hash(picture(2))
    dataset = module(tmp_path)
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a5.png")
    label = Image.fromarray(np.zeros(pixels.shape[:2], np.uint8))
    label.save(tmp_path / "a5-label.png")
    kind = "turned" if turns or mirrored else "bytes"
    assert found(audited(dataset, tmp_path)) == [
        (kind, ("a2", "a5"), ("training", "test"))
    ]


def test_symmetric_sums_hash_all_eight_orientations():
    """Row and column sums of all eight ways are alike: all eight are hashed."""
    square = np.array([[2, 1, 0], [0, 1, 2], [1, 1, 1]], np.uint8)
    hashes = {
        images.turned_hash(np.rot90(each, turns))
        for each in (square, square.T)
        for turns in range(4)
    }
    assert len(hashes) == 1


def test_names_that_differ_in_case_or_zeros_are_a_leak(tmp_path):
    split = {"training": ("IMG_007",), "validation": ("c",), "test": ("img_7.PNG",)}
    pixels = {case: case for ids in split.values() for case in ids}
    (leak,) = leaks.find(split, pixels, pixels, pixels, {})
    assert (leak.kind, leak.cases) == ("id", ("IMG_007", "img_7.PNG"))
    assert leaks.normal("case_00010.nii.gz") == leaks.normal("CASE_10")
    assert leaks.normal("case_1_00") != leaks.normal("case_100")
    assert leaks.normal("a1b") != leaks.normal("a11b")


def test_cases_of_one_group_are_a_warning(tmp_path):
    groups = {"a1": "video 1", "a2": "video 1", "a4": "video 1", "a5": "video 2"}
    report = audited(module(tmp_path, groups), tmp_path)
    assert found(report) == [
        ("group", ("a1", "a2", "a4"), ("training", "training", "validation"))
    ]
    assert report.ok
    assert "  warning: split: expected independent cases" in str(report)
    assert "one group (video 1): a1 (training), a2 (training), a4 (val" in str(report)


def test_many_warnings_of_one_kind_are_one_line_and_a_list_in_the_json(tmp_path):
    groups = dict(zip(("a1", "a2", "a4", "a5"), "xyxy", strict=True))
    report = audited(module(tmp_path, groups), tmp_path)
    assert len(found(report)) == len(report.as_dict()["leaks"]) == 2
    lines = [line for line in str(report).splitlines() if "group" in line]
    assert len(lines) == 1 and "parts, found 2 groups that lie in several" in lines[0]
    assert "such as (x): a1 (training), a4 (validation)" in lines[0]
    empty = "6 of 6 masks have no foreground, such as a1-label.png"
    assert empty in report.warnings and str(report).count("no foreground") == 1
    assert len(report.as_dict()["warned"][empty]) == 6


def test_copies_within_a_part_do_not_leak(tmp_path):
    dataset = module(tmp_path)
    (tmp_path / "a2.png").write_bytes((tmp_path / "a1.png").read_bytes())
    assert found(audited(dataset, tmp_path)) == []


def test_only_the_most_certain_kind_is_reported():
    split = {"training": ("x",), "validation": ("y",), "test": ("z",)}
    same = {"x": "1", "y": "2", "z": "1"}
    kinds = [leak.kind for leak in leaks.find(split, same, same, same, same)]
    assert kinds == ["bytes"]


def test_a_given_split_and_its_leaks_on_the_command_line(tmp_path, capsys):
    settings = phantom.Settings(training=2, validation=1, test=1, size=32)
    root = phantom.generate(settings, tmp_path / "set")
    cases = [case for ids in phantom.vessels.split(root).values() for case in ids]
    parts = {"training": cases[:2], "validation": cases[2:3], "test": cases[3:]}
    pixels = Image.open(phantom.vessels.roles(root, cases[0])["image"])
    copied = phantom.vessels.roles(root, cases[3])["image"]
    pixels.save(copied, format=pixels.format, compress_level=0)
    split = tmp_path / "split.json"
    split.write_text(json.dumps(parts))
    place = ["--data", str(root), "--work", str(tmp_path / "work")]
    report = tmp_path / "report.json"
    arguments = ["verify", "--dataset", "phantom", *place, "--json", str(report)]
    assert main([*arguments, "--split", str(split)]) == 2
    assert "identical pixels in different files" in capsys.readouterr().err
    kept = json.loads(report.read_text())
    assert not kept["ok"] and kept["problems"] == []
    (leak,) = kept["leaks"]
    assert (leak["kind"], leak["cases"]) == ("pixels", [cases[0], cases[3]])
    parts["test"].append("nobody")
    split.write_text(json.dumps(parts))
    assert main([*arguments, "--split", str(split)]) == 2
    kept = json.loads(report.read_text())
    assert [problem["kind"] for problem in kept["problems"]] == ["split"]
