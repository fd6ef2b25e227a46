"""`dscpp judge`: anyone's probabilities, whatever they are stored as."""

from __future__ import annotations

import csv
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from predicted_runs import make_run

from data_io.datasets import phantom
from data_io.own_images import probabilities
from pipelines import cli
from pipelines.prediction import evaluate, judge

LABEL = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
P = np.array([[0.25, 0.75, 0.4375], [0.0, 1.0, 0.875]], np.float32)
BRIER = (2 / 16 + 0.5625**2 + 1 + 1 / 64) / 6


def judged(probabilities: Path, labels: Path, output: Path, *more: str) -> Path:
    assert cli.main(["judge", *map(str, (probabilities, labels)), "--output",
                     str(output), *more]) == 0  # fmt: skip
    return output


def case_rows(output: Path) -> list[dict[str, str]]:
    (path,) = output.glob("runs/*/cases.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "p", tmp_path / "labels"
    for place in found:
        place.mkdir()
    return found


def write_label(place: Path, name: str = "a.png") -> None:
    Image.fromarray(LABEL * 255).save(place / name)


def test_measures_by_hand(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p, labels = places
    write_label(labels, "a_mask.png")
    np.save(p / "a.npy", P)
    out = judged(p, labels, tmp_path / "out", "--name", "mine")
    (row,) = [row for row in case_rows(out) if row["region"] == "image"]
    # Errors are 1/4, 1/4, 9/16, 0, 1, 1/8; the wrong 1 counts as 1e-7.
    right = (0.75, 0.75, 0.4375, 1 - 1e-7, 1e-7, 0.875)
    assert float(row["nll"]) == pytest.approx(-sum(map(math.log, right)) / 6, rel=1e-6)
    assert float(row["brier"]) == pytest.approx(BRIER)
    assert float(row["dice"]) == pytest.approx(2 * 2 / (3 + 3))
    (volume,) = pd.read_csv(out / "volumes.csv").to_dict("records")
    assert volume["expected"] == pytest.approx(3.3125)
    assert (volume["at_half"], volume["true"]) == (3, 3)
    assert volume["bias"] == pytest.approx(3.3125 / 3 - 1)
    said = capsys.readouterr().out
    assert "mine, foreground, 1 case\n" in said
    assert "volume of all cases together +10.4%" in said
    assert "nan" not in said
    assert (out / "reliability.png").stat().st_size > 1000


def write_grey16(path: Path) -> None:
    Image.fromarray(np.round(P * 65535).astype(np.uint16)).save(path)


def png_of_4_bits(rows: list[list[int]]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    lines = b"".join(bytes([0, a << 4 | b, c << 4]) for a, b, c in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 4, 0, 0, 0, 0))
    body = header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_of_int16(path: Path) -> None:
    """Pillow writes none; what it reads has no sign of where numbers end."""
    numbers = np.round(P * 32767).astype("<i2").tobytes()
    tags = ((256, 4, 3), (257, 4, 2), (258, 3, 16), (259, 3, 1), (262, 3, 1),
            (273, 4, 134), (277, 3, 1), (278, 4, 2), (279, 4, 12),
            (339, 3, 2))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + numbers)


KINDS: dict[str, Any] = {
    "foreground.npy": lambda path: np.save(path, P),
    "classes last.npy": lambda path: np.save(path, np.stack([1 - P, P], -1)),
    "classes first.npy": lambda path: np.save(path, np.stack([1 - P, P])),
    "one array.npz": lambda path: np.savez(path, p=P),
    "nnU-Net.npz": lambda path: np.savez(
        path, probabilities=np.stack([1 - P, P])[:, None], other=[1]
    ),
    "palette of greys.png": lambda path: (
        Image.fromarray(np.round(P * 255).astype(np.uint8)).quantize(16).save(path)
    ),
    "grey of 4 bits.png": lambda path: path.write_bytes(
        png_of_4_bits([[4, 11, 7], [0, 15, 13]])
    ),
    "float.tif": lambda path: Image.fromarray(P).save(path),
    "grey of 16 bits.png": write_grey16,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_format_gives_the_same_measures(
    kind: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    p, labels = places
    write_label(labels)
    KINDS[kind](p / f"a{Path(kind).suffix}")
    row = case_rows(judged(p, labels, tmp_path / "out"))[0]
    # The wrong 7/16 is 7/15 in 4 bits.
    off = 0.02 if "4 bits" in kind else 2e-3 if "palette" in kind else 1e-5
    assert float(row["brier"]) == pytest.approx(BRIER, abs=off)
    assert float(row["dice"]) == pytest.approx(2 / 3)


def test_what_predict_wrote_beside_the_probabilities_is_left_out(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p, labels = places
    write_label(labels)
    np.save(p / "a.npy", np.stack([1 - P, P], -1))
    for name in ("a.png", "a_picture.png"):
        write_label(p, name)
    (p / "dscpp.sha256").touch()
    (row, *_) = case_rows(judged(p, labels, tmp_path / "out"))
    assert float(row["brier"]) == pytest.approx(BRIER)
    (p / "a.npy").unlink()
    assert cli.main(["judge", str(p), str(labels), "--output", str(tmp_path / "o")])
    assert "`dscpp predict --probabilities`" in capsys.readouterr().err


def test_volumes_of_nifti_and_of_nnunet_are_the_same(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    p, labels = places
    random = np.random.default_rng(0)
    softmax = random.dirichlet([1, 1, 1], (4, 5, 6)).astype(np.float32)
    label = random.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    affine = np.diag([1, 2, 3, 1.0])
    nibabel.save(nibabel.Nifti1Image(label, affine), labels / "v.nii.gz")
    nibabel.save(nibabel.Nifti1Image(softmax, affine), p / "v.nii.gz")
    one = case_rows(judged(p, labels, tmp_path / "nifti"))
    (p / "v.nii.gz").unlink()
    np.savez(p / "v.npz", probabilities=softmax.transpose(3, 2, 1, 0))
    assert case_rows(judged(p, labels, tmp_path / "npz")) == one
    assert {row["target"] for row in one} == {"class 1", "class 2"}
    right = np.take_along_axis(softmax, label[..., None].astype(int), -1)
    assert float(one[0]["nll_categorical"]) == pytest.approx(-np.log(right).mean())


def test_nnunet_prediction_folder_is_accepted(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`nnUNetv2_predict --save_probabilities` writes these files."""
    p, labels = places
    softmax = np.stack([1 - P, P])
    for name in ("a", "b"):
        write_label(labels, f"{name}.png")
        np.savez_compressed(p / f"{name}.npz", probabilities=softmax[:, None])
        Image.fromarray((P > 0.5).astype(np.uint8)).save(p / f"{name}.png")
        (p / f"{name}.pkl").write_bytes(b"properties")
    for name in ("dataset", "plans", "predict_from_raw_data_args"):
        (p / f"{name}.json").write_text("{}")
    rows = case_rows(judged(p, labels, tmp_path / "out"))
    briers = {row["case"]: row["brier"] for row in rows if row["region"] == "image"}
    assert {case: float(value) for case, value in briers.items()} == {
        "a": pytest.approx(BRIER), "b": pytest.approx(BRIER)
    }  # fmt: skip
    # A label map of 0 and 1 was once read as probabilities of 0 and 1/255.
    (p / "b.npz").unlink()
    command = ["judge", str(p), str(labels), "--output", str(tmp_path / "other")]
    assert cli.main(command) == 2
    assert "b.png: expected b.npz beside it" in capsys.readouterr().err


def test_output_may_be_a_relative_folder(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, labels = places
    np.save(p / "a.npy", P)
    write_label(labels, "a.png")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["judge", str(p), str(labels), "--output", "judged"]) == 0
    assert Path("judged/table.csv").exists()


def test_missing_label_folder_is_named_as_given(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(places[0] / "a.npy", P)
    nowhere = tmp_path / "nowhere"
    given = [str(places[0]), str(nowhere), "--output", str(tmp_path / "out")]
    assert cli.main(["judge", *given]) == 2
    found = capsys.readouterr().err
    assert f"{nowhere}: expected a folder or file" in found and "--images" not in found


def test_two_sets_of_probabilities_of_one_name_are_refused(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p, labels = places
    write_label(labels, "a.png")
    np.savez(p / "a.npz", P)
    Image.fromarray((P * 255).astype(np.uint8)).save(p / "a.png")
    command = ["judge", str(p), str(labels), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert "expected one file named a, found 2" in capsys.readouterr().err


def test_judge_and_evaluate_give_the_same_measures(tmp_path: Path) -> None:
    settings = phantom.Settings(training=1, validation=1, test=2, size=32, seed=3)
    data = phantom.generate(settings, tmp_path / "data")
    run = make_run(tmp_path / "run", data)
    evaluate.evaluate(run, data)
    p, labels = tmp_path / "p", tmp_path / "labels"
    p.mkdir()
    labels.mkdir()
    for case in run.record["split"]["test"]:
        (p / f"{case}.npy").symlink_to(run.path(f"probabilities/{case}.npy"))
        label = phantom.vessels.references(data, case)["observer1"]
        Image.fromarray(label).save(labels / f"{case}.png")
    out = judged(p, labels, tmp_path / "out", "--classes", "background, phantom vessel")
    named = ("case", "target", "region", "nll", "brier", "dice", "n_voxels")
    ours = pd.read_csv(run.path("cases.csv"), dtype=str)
    ours = ours[(ours["split"] == "test") & (ours["reference"] == "observer1")]
    ours = ours[ours["region"].isin(["image", "band"])]
    theirs = pd.DataFrame(case_rows(out))
    keys = ["case", "region"]
    wanted, found = (
        each[list(named)].sort_values(keys).to_numpy().tolist()
        for each in (ours, theirs)
    )
    assert found == wanted and len(found) > 2


@pytest.mark.slow
def test_methods_judged_into_one_folder_share_its_tables(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p, labels = places
    write_label(labels)
    np.save(p / "a.npy", P)
    for name in ("one", "other", "one"):
        out = judged(p, labels, tmp_path / "out", "--name", name)
    table = pd.read_csv(out / "table.csv")
    assert set(table["loss"]) == {"one", "other"}
    Image.fromarray(255 - LABEL * 255).save(labels / "a.png")
    given = ["judge", str(p), str(labels), "--output", str(out), "--name", "third"]
    assert cli.main(given) == 2
    assert "Choose another --output" in capsys.readouterr().err
    assert not (out / "runs" / "third").exists()


def nothing(*_: Any) -> None:
    pass


def other_affine(p: Path, labels: Path) -> None:
    (labels / "a.png").unlink()
    volume = np.ones((2, 3, 4), np.float32)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.uint8), np.eye(4)),
                 labels / "a.nii")  # fmt: skip
    nibabel.save(nibabel.Nifti1Image(volume / 2, 2 * np.eye(4)), p / "a.nii")


def picture_of(colour: list[int]) -> Image.Image:
    return Image.fromarray(np.array([[colour] * 3] * 2, np.uint8))


BAD: dict[str, tuple[Any, str]] = {
    "nothing there": (nothing, "expected files ending in .npz"),
    "no label map": (lambda p, _: np.save(p / "b.npy", P), "expected a label map b.*"),
    "logits": (lambda p, _: np.save(p / "a.npy", 4 * P - 2), "behind the softmax"),
    "not a number": (
        lambda p, _: np.save(p / "a.npy", np.full((2, 3), np.nan)), "in [0, 1]"
    ),
    "overlapping": (
        lambda p, _: np.save(p / "a.npy", np.stack([P, P])), "that sum to 1"
    ),
    "other shape": (lambda p, _: np.save(p / "a.npy", P[:1]), "found (1, 3)"),
    "objects": (
        lambda p, _: np.save(p / "a.npy", np.array([{}], object)), "a.npy"
    ),
    "cut short": (lambda p, _: (p / "a.npy").write_bytes(b"\x93NUMPY"), "a.npy"),
    "several arrays": (lambda p, _: np.savez(p / "a.npz", a=P, b=P), "found a, b"),
    "two files": (
        lambda p, _: [np.save(p / "a.npy", P), np.savez(p / "a.npz", P)],
        "expected one file named a, found 2, with other endings",
    ),
    "a palette of colours": (
        lambda p, _: picture_of([9, 90, 0]).quantize(4).save(p / "a.png"),
        "expected probabilities in grey",
    ),
    "three greys that sum to 1": (
        lambda p, _: picture_of([51, 51, 153]).save(p / "a.png"),
        "expected probabilities in grey",
    ),
    "numbers with a sign": (lambda p, _: tiff_of_int16(p / "a.tif"), "without a sign"),
    "a label map": (
        lambda p, _: Image.fromarray(LABEL).save(p / "a.png"),
        "found 0 and 1, which look like class numbers",
    ),
    "0 to 255": (
        lambda p, _: np.save(p / "a.npy", np.uint8(P * 255)), "found 0 to 255"
    ),
    "other affine": (other_affine, "the affine of"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_and_nothing_written(
    fault: str,
    places: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    p, labels = places
    write_label(labels)
    make, message = BAD[fault]
    make(p, labels)
    out = tmp_path / "out"
    assert cli.main(["judge", str(p), str(labels), "--output", str(out)]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not out.exists()


def test_run_records_its_label_maps(places: tuple[Path, Path], tmp_path: Path) -> None:
    p, labels = places
    write_label(labels)
    np.save(p / "a.npy", P)
    out = judged(p, labels, tmp_path / "out", "--name", "a + c")
    (record,) = (json.loads(x.read_text()) for x in out.glob("runs/*/run.json"))
    assert record["state"] == "evaluated" and record["loss"] == "a + c"
    assert record["split"]["test"] == ["a"]


def test_foreground_is_one_value_in_all_label_maps(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three label maps of 1, of 2 and of 7 alone once were all the foreground."""
    p, labels = places
    for name, value in ("a", 2), ("b", 0), ("c", 7):
        np.save(p / f"{name}.npy", P)
        Image.fromarray(LABEL * np.uint8(value)).save(labels / f"{name}.png")
    for command in "judge", "calibrate":
        given = [command, str(p), str(labels), "--output", str(tmp_path / "out")]
        assert cli.main(given) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{labels / 'c.png'}: expected one value" in said
        assert f"found 7 here and 2 in {labels / 'a.png'}" in said
    Image.fromarray(LABEL * np.uint8(2)).save(labels / "c.png")
    read = list(probabilities.read_all(probabilities.pairs(p, labels)))
    assert [case.label.sum() for _, case in read] == [3, 0, 3]


@pytest.mark.parametrize(
    ("n", "low", "shown"), [(9, 0.1, ""), (10, 0.1, " [0.1000, 0.2000]"), (10, 0.2, "")]
)
def test_few_or_equal_cases_have_no_interval(n: int, low: float, shown: str) -> None:
    row = pd.Series({"mean": 0.15, "ci_low": low, "ci_high": 0.2, "n": n})
    assert judge._interval(row, n) == "0.1500" + shown


def test_report_says_of_how_many_cases_and_gives_both_biases_of_the_volume(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p, labels = places
    # Sums 3.3125 of 3 true voxels, 1.5 of 1, and 0.75 of none.
    one = np.array([[0, 1, 0], [0, 0, 0]], np.uint8)
    values = {"a": (P, LABEL), "b": (P * 0 + 0.25, one), "c": (P * 0 + 0.125, one * 0)}
    for name, (softmax, label) in values.items():
        np.save(p / f"{name}.npy", softmax)
        Image.fromarray(label).save(labels / f"{name}.png")
    judged(p, labels, tmp_path / "out", "--name", "all")
    said = capsys.readouterr().out
    assert "all, foreground, 3 cases\n" in said
    assert "volume of all cases together +39.1%\n" in said  # 5.5625 / 4
    assert "volume, mean over cases +30.2% (2 of 3 cases)\n" in said
    assert "Dice 0.3333 (2 of 3 cases)\n" in said  # no interval of so few
    only_c = str(p / "c.npy"), str(labels / "c.png")
    judged(Path(only_c[0]), Path(only_c[1]), tmp_path / "c")
    said = capsys.readouterr().out
    assert "Dice undefined (0 of 1 cases)" in said and "nan" not in said
    assert "volume of all cases together undefined\n" in said
