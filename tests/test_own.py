"""A user's own images: paired, looked at, trained on, predicted, measured."""

import csv
import dataclasses
import hashlib
import json
import shutil
import struct
import zlib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import own_page
import pytest
import skimage.io
from PIL import Image

from data_io import splits
from data_io.datasets import folder
from data_io.errors import InputError
from data_io.files import hashing, schema
from data_io.own_images import describe
from data_io.prepare.interface import RawInterface
from pipelines import stages
from pipelines.arguments import class_names
from pipelines.cli import main
from pipelines.posthoc import scaling
from pipelines.prediction.new_images import Trained
from pipelines.runs import predictions
from pipelines.runs import run as runs
from pipelines.training import predict as prediction
from pipelines.training import protocol
from pipelines.training.task import Task
from pipelines.workflow import plan


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def blob(size: tuple[int, int], seed: int) -> np.ndarray:
    """A bright rectangle's place; bool (rows, columns)."""
    random = np.random.default_rng(seed)
    row, column = random.integers(2, 8, 2)
    mask = np.zeros(size, bool)
    mask[row : row + 9, column : column + 14] = True
    return mask


def grey(mask: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, mask.shape)
    return np.clip(np.where(mask, 190, 60) + noise, 0, 255).astype(np.uint8)


def labelled(mask: np.ndarray, seed: int) -> np.ndarray:
    """A mask with wrong pixels: else a network is right, and no temperature fits."""
    return mask ^ (np.random.default_rng(seed).random(mask.shape) < 0.03)


def write_sets(place: Path) -> tuple[Path, Path]:
    """Eight grey images of 30 rows and 44 columns, masks 0/255 with an ending."""
    for number in range(8):
        mask = blob((30, 44), number)
        save(place / "photos" / f"a{number}.png", grey(mask, number))
        label = np.where(labelled(mask, number), 255, 0).astype(np.uint8)
        save(place / "labels" / f"a{number}_mask.png", label)
    return place / "photos", place / "labels"


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    return write_sets(tmp_path)


def describe_sets(sets, tmp_path, **options):
    return describe.describe(*sets, tmp_path / "work", **options)


def refused(sets, tmp_path, **options) -> str:
    with pytest.raises(InputError) as caught:
        describe_sets(sets, tmp_path, **options)
    return str(caught.value)


def test_derived_values_are_printed(sets, tmp_path):
    description = describe_sets(sets, tmp_path)
    record = folder.own_images.record(description.root)
    assert (record.channels, record.classes) == (1, ("background", "foreground"))
    assert record.input_shape == (32, 48)  # nearest to 30 and 44
    assert folder.own_images.cases(description.root) == tuple(f"a{k}" for k in range(8))
    label = folder.own_images.references(description.root, "a3")["observer1"]
    np.testing.assert_array_equal(label, labelled(blob((30, 44), 3), 3))
    for text in ("8 of 30 x 44", "1 channel (grey)", "foreground (255)", "32 x 48"):
        assert text in str(description)


def test_checked_file_is_not_decoded_again(sets, tmp_path, monkeypatch):
    describe_sets(sets, tmp_path)
    monkeypatch.setattr(folder, "read_pixels", None)
    monkeypatch.setattr(folder, "read_labels", None)
    describe_sets(sets, tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (["a", "b"], ["b", "a"], {"a": "a", "b": "b"}),
        (["a1", "a12"], ["a1_seg", "a12_seg"], {"a1": "a1_seg", "a12": "a12_seg"}),
        (["a", "a_1"], ["a_m", "a_1_m"], {"a": "a_m", "a_1": "a_1_m"}),
        (["c_1", "d_1"], ["c", "d"], {"c_1": "c", "d_1": "d"}),
        (["e_x", "e_y", "f_z"], ["e", "f"], {"f_z": "f"}),  # which of the two?
        (["a"], ["a_x", "a_y"], {}),  # which of the two?
        (["a"], ["ab"], {}),
    ],
)
def test_images_and_label_maps_are_paired_by_name(images, labels, expected):
    assert describe.match_names(images, labels) == expected


def test_all_problems_of_pairs_and_sizes_at_once(sets, tmp_path):
    images, labels = sets
    (labels / "a0_mask.png").unlink()
    (images / "a1.png").unlink()
    save(labels / "a2_mask.png", np.zeros((29, 44), np.uint8))
    (images / "a3.png").write_bytes(b"no image at all")
    save(labels / "a4_mask.png", np.full((30, 44, 3), [9, 8, 7], np.uint8))
    problems = refused(sets, tmp_path)
    assert "5 problems" in problems
    assert "a0.png: expected a label map a0.* or a0_*.*" in problems
    assert "a1_mask.png: expected an image of this name" in problems
    size = "expected 30 rows x 44 columns, the size of its image, found 29 rows"
    assert f"a2_mask.png: {size}" in problems
    assert "a3.png: expected a whole PNG image" in problems
    assert "a4_mask.png: expected a label map with one number a pixel" in problems


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1], "1 of 8 have others than 0, 255, such as a0 (0, 1)"),
        ([0, 120, 255], "found 0, 120, 255. 1 of 8"),
        (list(range(200)), "such as a0 (0, 1, 2, 3, 4, 5, ...)."),
    ],
)
def test_wrong_label_values_are_refused(sets, tmp_path, values, message):
    label = np.resize(np.array(values, np.uint8), (30, 44))
    save(sets[1] / "a0_mask.png", label)
    assert message in refused(sets, tmp_path)


def test_empty_or_missing_data_are_refused(sets, tmp_path):
    for path in sets[1].iterdir():
        save(path, np.zeros((30, 44), np.uint8))
    assert "found 0 in all of them" in refused(sets, tmp_path)
    assert "expected a folder or file" in refused((sets[0], tmp_path / "x"), tmp_path)
    (tmp_path / "empty").mkdir()
    assert "found none among 0" in refused((sets[0], tmp_path / "empty"), tmp_path)


def test_several_classes_must_have_no_gap(sets, tmp_path):
    for path in sets[1].iterdir():
        label = np.zeros((30, 44), np.uint8)
        label[3:9, 2:30] = 1
        label[5:7, 4:9] = 3
        save(path, label)
    assert "without a gap" in refused(sets, tmp_path)
    names = ["background", "kidney", "tumour", "cyst"]
    description = describe_sets(sets, tmp_path, classes=names)
    assert folder.own_images.record(description.root).classes == tuple(names)
    assert folder.own_images.references(description.root, "a0")["observer1"].max() == 3
    assert "0 to 2 for the 3 classes" in refused(sets, tmp_path, classes=names[:3])


def test_too_few_label_values_for_three_classes_are_the_only_problem(sets, tmp_path):
    message = refused(sets, tmp_path, classes=["background", "kidney", "tumour"])
    assert message.endswith("for the 3 classes named, found 0, 255.")


def test_images_for_a_network_of_volumes_give_one_problem(sets, tmp_path):
    save(sets[0] / "a0.png", np.arange(3960, dtype=np.uint8).reshape(30, 44, 3))
    like = dataclasses.replace(
        folder.own_images.RECORD, input_shape=(16, 16, 16), channels=1
    )
    message = refused(sets, tmp_path, like=like)
    assert message.endswith(
        "1 problem.\n  1. expected volumes, as the network takes, found images."
    )


def test_another_interpretation_of_the_same_files_changes_the_data_hash(sets, tmp_path):
    for path in sets[1].iterdir():
        save(path, (blob((30, 44), 1) * 1).astype(np.uint8))
    two = describe_sets(sets, tmp_path).root
    three = describe_sets(sets, tmp_path, classes=["background", "a", "b"]).root
    read = [
        next(
            p for p in folder.own_images.files(root, "a0") if p.name == "reading.json"
        ).read_text()
        for root in (two, three)
    ]
    assert read[0] != read[1]


def palette(path: Path) -> Path:
    image = Image.fromarray(np.array([[0, 1, 2]] * 2, np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path.parent.mkdir(exist_ok=True)
    image.save(path)
    return path


def test_colour_of_16_bits_is_not_cut_to_8(tmp_path):
    """A PNG of 16 bits a channel by hand: 2 rows of 2 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    row = b"\0" + struct.pack(">6H", 1, 2, 3, 4, 5, 60000)
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(2 * row))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match="expected 8 bits a colour channel, found 16"):
        folder.read_pixels(tmp_path / "deep.png")


def test_every_supported_kind_of_image_is_read(tmp_path):
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    clear = np.concatenate([colour, np.full((2, 3, 1), 255, np.uint8)], axis=-1)
    read = folder.read_pixels
    np.testing.assert_array_equal(read(save(tmp_path / "c.png", colour)), colour)
    np.testing.assert_array_equal(read(save(tmp_path / "o.png", clear)), colour)
    np.testing.assert_array_equal(read(palette(tmp_path / "p.png"))[0, 2], [70, 80, 90])
    np.testing.assert_array_equal(folder.read_labels(tmp_path / "p.png")[0], [0, 1, 2])
    deep = read(save(tmp_path / "d.png", np.array([[0, 40000]], np.uint16)))
    assert deep.dtype == np.float32 and deep.tolist() == [[[0.0], [40000.0]]]
    real = read(save(tmp_path / "f.tif", np.array([[0.5, -2.5]], np.float32)))
    assert real[..., 0].tolist() == [[0.5, -2.5]]
    pages = [Image.fromarray(colour), Image.fromarray(colour + 1)]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="expected one picture, found 2 pages"):
        read(tmp_path / "two.tif")
    clear[0, 0, 3] = 3
    with pytest.raises(InputError, match=r"transparent.*without transparency"):
        read(save(tmp_path / "t.png", clear))
    same = np.repeat(colour[..., :1], 3, axis=-1)
    opaque = np.stack([same[..., 0], np.full((2, 3), 255, np.uint8)], axis=-1)
    for pixels in (same, opaque, same[..., 0]):
        labels = folder.read_labels(save(tmp_path / "s.png", pixels))
        np.testing.assert_array_equal(labels, colour[..., 0])
    opaque[0, 0, 1] = 3
    with pytest.raises(InputError, match="mode LA with transparent pixels"):
        folder.read_labels(save(tmp_path / "t.png", opaque))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_image_with_an_exif_rotation_is_refused(tmp_path, ending):
    pixels = np.arange(16 * 8, dtype=np.uint8).reshape(16, 8)
    path = tmp_path / f"photo.{ending}"
    exif = Image.Exif()
    for orientation in (0, 1):
        exif[0x0112] = orientation
        save(path, pixels, exif=exif)
        assert folder.read_pixels(path).shape == (16, 8, 1)
    exif[0x0112] = 6
    save(path, pixels, exif=exif)
    for read in (folder.read_pixels, folder.read_labels):
        with pytest.raises(InputError, match="found an EXIF rotation"):
            read(path)


def test_grey_and_colour_together_become_colour(sets, tmp_path):
    image = np.repeat(grey(blob((30, 44), 0), 0)[..., None], 3, axis=-1)
    save(sets[0] / "a0.png", image)
    description = describe_sets(sets, tmp_path)
    assert folder.own_images.record(description.root).channels == 3
    assert "grey ones become RGB" in str(description)
    pixels, _ = RawInterface(folder.own_images, description.root).load_image("a1")
    assert pixels.shape == (30, 44, 3)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(584, 565)], [512, 512]),
        ([(100, 250), (300, 250), (90, 2000)], [96, 256]),  # medians 100 and 250
        ([(7, 40)], [32, 48]),
        ([(611, 512, 512)], [160, 80, 160]),
        ([(12, 200, 100)], [16, 160, 96]),
    ],
)
def test_the_input_is_the_median_size(shapes, expected):
    assert describe._input_shape(np.array(shapes)) == expected


def tiny(record):
    return protocol.Protocol(record.input_shape, filters=4, depth=2, epochs=12)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def whole(path: Path) -> list[dict[str, str]]:
    """The rows of `cases.csv` that are of whole images, not of a part of them."""
    return [row for row in rows(path) if row["region"] == "image"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with photos, labels, and a run of them in its place in results."""
    place = tmp_path_factory.mktemp("own")
    images, labels = write_sets(place)
    given = ["--images", str(images), "--masks", str(labels), "--name", "spots"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setitem(protocol.PRESETS, "reduced", tiny)
        train = ["train", *given, "--loss", "DSC++", "--preset", "reduced"]
        assert main(train) == 0
        (run,) = Path("results/own-spots/reduced/runs").iterdir()
        assert main(["predict", "--run", str(run)]) == 0
        assert main(["evaluate", "--run", str(run)]) == 0
    return place, run


@pytest.fixture
def run(trained, monkeypatch) -> Path:
    monkeypatch.chdir(trained[0])
    return trained[1]


@pytest.mark.backend
def test_from_two_folders_to_a_table(run, capsys):
    record = json.loads((run / "run.json").read_text())
    assert record["dataset"] == "own-spots" and record["state"] == "evaluated"
    assert record["classes"] == ["background", "foreground"]
    assert [len(ids) for ids in record["split"].values()] == [4, 2, 2]
    measured = whole(run / "cases.csv")
    assert {row["target"] for row in measured} == {"foreground"}
    assert np.mean([float(row["dice"]) for row in measured]) > 0.6
    assert main(["tables"]) == 0
    assert "own-spots" in capsys.readouterr().out
    means = {row["metric"]: row for row in rows(run.parents[1] / "table.csv")}
    tests = [float(row["nll"]) for row in measured if row["split"] == "test"]
    assert float(means["nll"]["mean"]) == pytest.approx(np.mean(tests), rel=1e-5)


def test_another_set_has_rows_of_its_own(run, capsys):
    before = (run / "cases.csv").read_bytes()
    other = ["--images", "photos", "--masks", "labels", "--name", "elsewhere"]
    assert main(["evaluate", "--run", str(run), *other]) == 0
    output = capsys.readouterr().out
    assert (
        "foreground: nll" in output
        and "6 of 8 images of this set were trained" in output
    )
    assert (run / "cases.csv").read_bytes() == before
    there = whole(run / "other-sets" / "elsewhere" / "cases.csv")
    assert {row["split"] for row in there} == {"elsewhere"} and len(there) == 8
    # The same images, so the same values as the run's own.
    values = {row["case"]: row["nll"] for row in there}
    for row in whole(run / "cases.csv"):
        assert values[row["case"]] == row["nll"]
    about = json.loads((run / "other-sets" / "elsewhere" / "set.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert about["data_hash"] == record["data_hash"]
    split = record["split"]
    assert about["seen"] == sorted(split["training"] + split["validation"])
    assert not list(run.glob(".other-sets*"))
    assert main(["tables"]) == 0
    means = {row["metric"]: row for row in rows(run.parents[1] / "other-sets.csv")}
    every = [float(row["nll"]) for row in there]
    assert float(means["nll"]["mean"]) == pytest.approx(np.mean(every), rel=1e-5)
    assert (means["nll"]["set"], means["nll"]["n"]) == ("elsewhere", "8")
    shutil.rmtree(run / "other-sets")
    assert main(["tables"]) == 0
    assert not (run.parents[1] / "other-sets.csv").exists()


def test_other_images_do_not_replace_a_set_of_the_same_name(run, tmp_path, capsys):
    save(tmp_path / "in" / "x.png", grey(blob((30, 44), 9), 9))
    save(tmp_path / "on" / "x.png", blob((30, 44), 9).astype(np.uint8) * 255)
    one = ["--images", str(tmp_path / "in"), "--masks", str(tmp_path / "on")]
    command = ["evaluate", "--run", str(run)]
    shutil.move(run / "seen-images.json", tmp_path)
    assert main([*command, *one]) == 0
    assert "is not known" in capsys.readouterr().out
    shutil.move(tmp_path / "seen-images.json", run)
    kept = (run / "other-sets" / "other" / "set.json").read_text()
    assert json.loads(kept)["seen"] is None
    assert main([*command, "--images", "photos", "--masks", "labels"]) == 2
    assert "Give these another --name" in capsys.readouterr().err
    assert (run / "other-sets" / "other" / "set.json").read_text() == kept
    assert main([*command, *one]) == 0  # the same images: measured again
    assert "0 of 1 images" in capsys.readouterr().out
    shutil.rmtree(run / "other-sets")


@pytest.mark.parametrize("threshold", [None, "0.3"])
def test_images_without_labels_are_predicted(run, tmp_path, threshold):
    case = json.loads((run / "run.json").read_text())["split"]["test"][0]
    kept = np.load(run / "probabilities" / f"{case}.npy")
    command = ["predict", "--model", str(run), "--input", "photos"]
    more = ["--threshold", threshold] if threshold else []
    assert main([*command, "--output", str(tmp_path), *more]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / f"{case}.npy"), kept)
    with Image.open(tmp_path / f"{case}.png") as image:
        assert image.mode == "L"  # of a palette, scikit-image gave colours
    label = skimage.io.imread(tmp_path / f"{case}.png")
    assert label.shape == (30, 44) and label.dtype == np.uint8
    wanted = kept[..., 1] >= 0.3 if threshold else kept.argmax(-1)
    np.testing.assert_array_equal(label, wanted)
    # Its own are replaced; one that was corrected is not.
    assert main([*command, "--output", str(tmp_path), *more]) == 0
    (tmp_path / f"{case}.png").write_bytes(b"corrected")
    assert main([*command, "--output", str(tmp_path), *more]) == 2
    assert (tmp_path / f"{case}.png").read_bytes() == b"corrected"


@pytest.mark.parametrize(("kind", "expected"), [("run", 1.5), ("files", 3.0)])
def test_a_temperature_of_files_comes_on_top_of_a_runs_own(kind, expected):
    own = runs.Run(Path("run"), {"posthoc": {"temperature": 2.0}})
    network = Trained(None, None, None, ("background", "foreground"), own)
    decision = {"inputs": {"kind": kind}, "temperature": 1.5}
    p = np.array([[0.1, 0.9]], np.float32)
    scaled = network.scaled(decision).scale(p)
    np.testing.assert_allclose(scaled, scaling.scale(p, expected), 1e-6)


def test_a_decision_file_is_applied_to_new_images(run, tmp_path, capsys):
    file, out = tmp_path / "decision.json", tmp_path / "out"
    assert main(["calibrate", "--run", str(run), "--output", str(file)]) == 0
    decision = json.loads(file.read_text())
    assert decision["classes"] == ["background", "foreground"]
    weights = (run / "model.keras").read_bytes()
    assert decision["inputs"]["model"] == hashlib.sha256(weights).hexdigest()
    decision |= {"temperature": 1.7, "threshold": 0.35}
    del decision["sha256"]  # as who changes it is told to
    decision["volume_factors"] = {"foreground": 0.9}
    file.write_text(json.dumps(decision))
    given = ["predict", "--model", str(run), "--images", "photos"]
    command = [*given, "--output", str(out), "--decision", str(file)]
    assert main(command) == 0
    assert main(command) == 0  # its own files are replaced
    case = json.loads((run / "run.json").read_text())["split"]["test"][0]
    kept = np.load(run / "probabilities" / f"{case}.npy").astype(np.float64)
    foreground = 1 / (1 + (kept[..., 0] / kept[..., 1]) ** (1 / 1.7))
    np.testing.assert_allclose(np.load(out / f"{case}.npy")[..., 1], foreground, 1e-4)
    sure = np.abs(foreground - 0.35) > 1e-5
    assert ((labels_in(out)[case] == 1) == (foreground >= 0.35))[sure].all()
    volumes = {row["case"]: row for row in rows(out / "volumes.csv")}
    assert len(volumes) == 8 and volumes[case]["target"] == "foreground"
    expected = 0.9 * foreground.sum()
    assert float(volumes[case]["expected"]) == pytest.approx(expected, rel=1e-4)
    # Applied once: the file among the probabilities says so.
    for command_of_files in ("judge", "calibrate"):
        more = ["--decision", str(file)] * (command_of_files == "judge")
        twice = [command_of_files, str(out), "labels", "--output", str(tmp_path / "x")]
        assert main([*twice, *more]) == 2
        assert "decision.json there was applied to" in capsys.readouterr().err
    assert main([*given, "--output", str(out)]) == 0
    assert not (out / "volumes.csv").exists() and not (out / "decision.json").exists()
    file.write_text(json.dumps(decision | {"classes": ["background", "a", "b"]}))
    assert main(command) == 2
    assert "expected probabilities of 3 classes" in capsys.readouterr().err
    assert main([*command, "--threshold", "0.5"]) == 2
    assert "expected no --threshold beside it" in capsys.readouterr().err
    decision["inputs"]["model"] = "0" * 64
    file.write_text(json.dumps(decision))
    assert main(command) == 2
    assert "found others. Make a decision file for" in capsys.readouterr().err


def labels_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def mean_dice(folder: Path, cases: Sequence[str]) -> float:
    """Of label maps that were written, against the masks."""
    values = []
    for case in cases:
        truth = np.asarray(Image.open(Path("labels") / f"{case}_mask.png")) > 0
        label = labels_in(folder)[case] == 1
        values.append(2 * (label & truth).sum() / (label.sum() + truth.sum()))
    return float(np.mean(values))


def test_temperature_and_threshold_on_new_images(run, tmp_path, capsys):
    """From a fitted temperature and a chosen threshold to label maps, and back."""
    split = json.loads((run / "run.json").read_text())["split"]
    assert main(["temperature", "--run", str(run)]) == 0
    twin = run.with_name(f"{run.name}-temperature")
    for one in (run, twin):
        kept = (one / "cases.csv").read_bytes()
        assert main(["evaluate", "--run", str(one), "--threshold", "0.33"]) == 0
        output = capsys.readouterr().out
        out = tmp_path / one.name
        command = ["predict", "--run", str(one), "--images", "photos"]
        more = ["--output", str(out), "--threshold", "0.33"]
        assert main([*command, *more]) == 0
        for case in split["test"] + split["validation"]:
            saved = predictions.probabilities(runs.Run.open(one), case, (30, 44))
            np.testing.assert_array_equal(np.load(out / f"{case}.npy"), saved)
            wanted = saved[..., 1] >= 0.33
            np.testing.assert_array_equal(labels_in(out)[case], wanted)
        assert (one / "cases.csv").read_bytes() == kept
        measured = whole(one / "threshold-0.33.csv")
        assert sorted(row["case"] for row in measured) == sorted(split["test"])
        mean = np.mean([float(row["dice"]) for row in measured])
        assert mean == pytest.approx(mean_dice(out, split["test"]))
        assert f"threshold-0.33: foreground: dice {mean:.3f}" in output

    out = tmp_path / "auto"
    command = ["predict", "--run", str(twin), "--input", "photos", "--threshold"]
    assert main([*command, "auto", "--output", str(out)]) == 0
    output = capsys.readouterr().out
    best = float(output.partition("mean Dice ")[2].split()[0])
    assert "2 of 2 cases have foreground" in output
    assert mean_dice(out, split["validation"]) == pytest.approx(best, abs=5e-4)
    for at in ("0.05", "0.5", "0.95"):
        assert main([*command, at, "--output", str(tmp_path / at)]) == 0
        assert mean_dice(tmp_path / at, split["validation"]) <= best + 5e-4

    other = ["--images", "photos", "--masks", "labels", "--threshold", "0.33"]
    assert main(["evaluate", "--run", str(twin), *other]) == 0
    assert "6 of 8 images of this set were trained" in capsys.readouterr().out
    rows_ = {row["case"]: row for row in whole(twin / "other-sets/other/cases.csv")}
    cut = {
        row["case"]: row for row in whole(twin / "other-sets/other/threshold-0.33.csv")
    }
    for row in whole(twin / "cases.csv"):
        assert rows_[row["case"]]["nll"] == row["nll"]
    for row in whole(twin / "threshold-0.33.csv"):
        assert cut[row["case"]]["dice"] == row["dice"]
    assert main(["evaluate", "--run", str(twin), *other]) == 0  # its own are replaced
    shutil.rmtree(twin)
    (run / "threshold-0.33.csv").unlink()


def test_pictures_of_every_predicted_case(run, tmp_path, capsys):
    split = json.loads((run / "run.json").read_text())["split"]
    assert main(["predict", "--run", str(run), "--pictures"]) == 0
    pictures = {path.name for path in (run / "pictures").glob("*_picture.png")}
    assert pictures == {
        f"{case}_picture.png" for part in ("validation", "test") for case in split[part]
    }
    assert f"{run / 'pictures'}: 4 pictures" in capsys.readouterr().out
    one = ["--input", "photos/a1.png", "--output", str(tmp_path), "--pictures"]
    assert main(["predict", "--model", str(run), *one]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a1.npy", "a1.png", "a1_picture.png", "dscpp.sha256"}
    assert main(["predict", "--model", str(run), *one]) == 0
    assert main(["predict", "--model", str(run), *one[:-1], "--threshold", "0.9"]) == 0
    assert not (tmp_path / "a1_picture.png").exists()  # it was of another threshold
    assert main(["predict", "--model", str(run), *one]) == 0
    (tmp_path / "a1_picture.png").write_bytes(b"edited")
    assert main(["predict", "--model", str(run), *one]) == 2
    assert "a1_picture.png: expected no file, or one" in capsys.readouterr().err


def test_new_predictions_delete_what_was_made_of_the_old_ones(
    run, tmp_path, monkeypatch
):
    """`threshold-0.4.csv` and pictures once stayed after `predict --again`."""
    copy, twin = tmp_path / "copy", tmp_path / "copy-temperature"
    shutil.copytree(run, copy)
    given = ["--run", str(copy)]
    assert main(["temperature", *given]) == 0
    for one in (copy, twin):
        command = ["evaluate", "--run", str(one), "--threshold", "0.4"]
        assert main(command) == 0
    assert main(["predict", *given, "--pictures"]) == 0
    other = ["--images", "photos", "--masks", "labels", "--name"]
    assert main(["evaluate", *given, *other, "of-these-weights"]) == 0
    sets_, former = copy / "other-sets", copy / "other-sets" / "of-others"
    shutil.copytree(sets_ / "of-these-weights", former)
    about = json.loads((former / "set.json").read_text())
    about = schema.sealed({**about, "model": "0" * 64})
    (former / "set.json").write_text(json.dumps(about))

    def made() -> set[str]:
        left = [*copy.glob("threshold*"), *copy.glob("pictures/*_*"), *sets_.iterdir()]
        return {path.name for path in (*left, *twin.glob("threshold*"))}

    before = made()
    assert main(["predict", *given, "--again"]) == 0
    assert made() == before  # the same probabilities as before
    edited = min(copy.glob("pictures/*_picture.png"))
    edited.write_bytes(b"edited")
    mine, damaged = copy / "threshold-2024 notes.csv", sets_ / "damaged"
    mine.write_text("mine")
    shutil.copytree(former, damaged)
    (damaged / "set.json").write_text("{")
    corrected = sets_ / "corrected"
    shutil.copytree(former, corrected)
    (corrected / "cases.csv").write_text("corrected by hand")
    kept = {edited.name, mine.name, damaged.name, corrected.name, "of-these-weights"}
    real = prediction.probabilities
    monkeypatch.setattr(
        prediction, "probabilities", lambda *given: scaling.scale(real(*given), 2)
    )
    assert main(["predict", *given, "--again"]) == 0
    assert made() == {*kept, "threshold-0.4.csv"}
    twin_table = twin / "threshold-0.4.csv"
    twin_table.write_text(twin_table.read_text() + "\n")
    assert main(["temperature", "--again", *given]) == 0
    assert made() == {*kept, "threshold-0.4.csv"}  # it was changed by hand


def test_evaluate_does_not_replace_other_files(run, capsys):
    target = run / "other-sets" / "mine"
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    command = ["evaluate", "--run", str(run), "--images", "photos", "--masks", "labels"]
    assert main([*command, "--name", "mine"]) == 2
    assert "mine: expected no folder, or the measures" in capsys.readouterr().err
    assert main([*command, "--name", "=1+1"]) == 2
    assert "run's own split; received '=1+1'" in capsys.readouterr().err
    assert (target / "notes.txt").read_text() == "mine"
    shutil.rmtree(run / "other-sets")


def test_single_image_with_a_bare_model(run, tmp_path):
    shutil.copy(run / "model.keras", tmp_path / "net.keras")
    one = ["--input", str(Path("photos/a1.png")), "--output"]
    for model, out in [(run / "model.keras", "with"), (tmp_path / "net.keras", "bare")]:
        output = str(tmp_path / out)
        assert main(["predict", "--model", str(model), *one, output]) == 0
    names = sorted(path.name for path in (tmp_path / "with").iterdir())
    assert names == ["a1.npy", "a1.png", "dscpp.sha256"]
    predictions = [np.load(tmp_path / out / "a1.npy") for out in ("with", "bare")]
    # Beside its run a network has its fast form, alone the plain one of its file.
    np.testing.assert_allclose(predictions[0], predictions[1], atol=1e-5)


def test_invalid_images_to_predict_are_named(run, tmp_path, capsys):
    save(tmp_path / "in" / "c.png", np.zeros((9, 9, 3), np.uint8))
    for arguments, message in [
        (["--input", str(tmp_path / "in")], "expected images with 1 channel"),
        (["--input", str(tmp_path / "none")], "expected a folder or file, found none"),
    ]:
        output = ["--output", str(tmp_path / "out")]
        assert main(["predict", "--model", str(run), *arguments, *output]) == 2
        assert message in capsys.readouterr().err
    for taken in ("photos", "labels"):
        there = ["--input", "photos", "--output", taken]
        assert main(["predict", "--model", str(run), *there]) == 2
        assert "expected a folder apart from images" in capsys.readouterr().err
    save(tmp_path / "masks" / "a3.png", blob((30, 44), 3))
    there = ["--input", "photos", "--output", str(tmp_path / "masks")]
    assert main(["predict", "--model", str(run), *there]) == 2
    assert "a3.png: expected no file, or one that dscpp" in capsys.readouterr().err


def test_model_without_a_fixed_size_needs_its_run(run, tmp_path, capsys):
    import keras

    inputs = keras.Input((None, None, 1))
    outputs = keras.layers.Conv2D(2, 1, activation="softmax")(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "free.keras")
    command = ["predict", "--model", str(tmp_path / "free.keras"), "--input", "photos"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    shapes = "found one from (None, None, None, 1) to (None, None, None, 2)"
    assert shapes in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "classes", "found"),
    [
        ((32, 32, 2), 2, "(None, 32, 32, 2) to (None, 32, 32, 2)"),
        ((32, 32, 4), 2, "(None, 32, 32, 4) to (None, 32, 32, 2)"),
        ((32,), 2, "(None, 32) to (None, 2)"),
        ((8, 8, 8, 1), 2, "(None, 8, 8, 8, 1) to (None, 8, 8, 8, 2)"),
        ((32, 32, 1), 1, "(None, 32, 32, 1) to (None, 32, 32, 1)"),
    ],
)
def test_model_that_does_not_take_images_is_refused(
    run, tmp_path, capsys, shape, classes, found
):
    import keras

    inputs = keras.Input(shape)
    outputs = keras.layers.Dense(classes, activation="softmax")(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "net.keras")
    command = ["predict", "--model", str(tmp_path / "net.keras"), "--input", "photos"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "net.keras: expected run.json beside it, or a network" in error
    assert f"found one from {found}. Give the run's folder" in error


def test_a_network_of_whole_images_or_two_outputs_is_refused(run, tmp_path, capsys):
    import keras

    inputs = keras.Input((32, 32, 1))
    one = keras.layers.Conv2D(2, 1, activation="softmax")(inputs)
    whole = keras.layers.GlobalAveragePooling2D()(one)
    pixels = "(None, 32, 32, 2)"
    for outputs, found in [
        (whole, "(None, 2)"),
        ([one, one], f"{pixels} and {pixels}"),
    ]:
        keras.Model(inputs, outputs).save(tmp_path / "net.keras")
        command = ["predict", "--model", str(tmp_path / "net.keras")]
        there = ["--input", "photos", "--output", str(tmp_path / "out")]
        assert main([*command, *there]) == 2
        shapes = f"found one from (None, 32, 32, 1) to {found}."
        assert shapes in capsys.readouterr().err


def test_a_run_keeps_the_split_it_was_given(run, tmp_path, capsys):
    split = tmp_path / "split.json"
    parts = {"training": ["a1", "a5"], "validation": ["a0"], "test": ["a7"]}
    split.write_text(json.dumps(parts))
    train = ["train", "--images", "photos", "--masks", "labels", "--loss", "CE"]
    train += ["--preset", "demo", "--epochs", "1", "--set", "filters=2"]
    train += ["--set", "depth=1", "--output", str(tmp_path / "run")]
    train += ["--split", str(split)]
    assert main(train) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["split"] == parts and record["split_seed"] is None
    assert main(["predict", "--run", str(tmp_path / "run")]) == 0
    kept = (tmp_path / "run" / "probabilities").glob("*.npy")
    names = {path.stem for path in kept}
    assert names == {"a0", "a7"}
    split.write_text(json.dumps({**parts, "test": ["a6"]}))
    assert main(train) == 2
    assert "split.test: the run has" in capsys.readouterr().err


def write_dummy_run(place: Path) -> list[str]:
    """A run that is trained, as its record says; returns the command of it."""
    images, labels = write_sets(place)
    given = ["--images", str(images), "--masks", str(labels), "--loss", "CE"]
    command = ["train", *given, "--preset", "demo", "--output", "run"]
    task, root = task_of(place)
    prepared = {
        "split": splits.of(task.module, root, 0),
        "data_hash": hashing.data_hash(
            hashing.case_hashes(
                folder.own_images,
                root,
                folder.own_images.cases(root),
                place / ".work" / "cache",
            )
        ),
    }
    record = {**task.identity(), **prepared, "best_val_loss": 1, "times": {"epochs": 1}}
    runs.Run.create(place / "run", record).update(state="trained")
    return command


def task_of(place: Path) -> tuple[Task, Path]:
    root = describe.describe(place / "photos", place / "labels", place / ".work").root
    task = Task.make("own", "CE", preset="demo", record=folder.own_images.record(root))
    return task, root


@pytest.fixture
def dummy(tmp_path, monkeypatch) -> list[str]:
    """In a folder with a run called trained; the command that asks for it."""
    monkeypatch.chdir(tmp_path)
    return write_dummy_run(tmp_path)


def test_images_added_later_are_refused(dummy, capsys):
    assert main(dummy) == 0
    capsys.readouterr()
    save(Path("photos/b.png"), grey(blob((30, 44), 9), 9))
    save(Path("labels/b_mask.png"), blob((30, 44), 9).astype(np.uint8) * 255)
    assert main(dummy) == 2
    error = capsys.readouterr().err
    assert "split.training: the run has" in error and "another --output" in error


def test_repeated_training_command_finds_moved_images(dummy, tmp_path, capsys):
    assert main(dummy) == 0
    Path("photos").rename("elsewhere")
    assert main(["predict", "--run", "run"]) == 2
    error = capsys.readouterr().err
    assert "found 8 files gone" in error and "`dscpp train` command" in error
    assert main([word.replace("photos", "elsewhere") for word in dummy]) == 0
    roles = folder.own_images.roles(Path("run/own-data"), "a1")
    assert roles["image"] == tmp_path / "elsewhere" / "a1.png"
    shutil.rmtree("run/own-data")
    assert main(["predict", "--run", "run"]) == 2
    assert "no note of where that was" in capsys.readouterr().err


def test_run_finds_its_images_without_the_work_folder(dummy, tmp_path):
    assert main(dummy) == 0
    run = runs.Run.open(Path("run"))
    folder_of_set = stages.located(run, None, tmp_path / ".work")
    shutil.rmtree(".work")
    assert stages.located(run, None, tmp_path / ".work") == folder_of_set
    roles = folder.own_images.roles(folder_of_set, "a1")
    assert {role: path.is_file() for role, path in roles.items()} == {
        "image": True,
        "observer1": True,
    }


def test_reproduce_passes_the_split_to_its_runs(tmp_path):
    experiment = plan.Experiment("dsb2018", (("CE", None),), preset="reduced")
    seeded = dataclasses.replace(experiment, split_seed=3)
    files = (tmp_path / "sample_list.json", tmp_path / "testing.json")
    read = dataclasses.replace(experiment, split_seed=3, split_files=files)
    for changed, seed, expected in [(seeded, 3, ()), (read, None, files)]:
        (planned,) = plan.plan([changed], tmp_path)
        task = plan.load(planned.write(tmp_path / "run.json")).task
        assert (task.split_seed, task.split_files) == (seed, expected)


@pytest.fixture
def three(tmp_path) -> tuple[tuple[Path, Path], object]:
    """Images of three classes, and what a network of such takes."""
    place = write_sets(tmp_path / "three")
    for path in place[1].iterdir():
        label = blob((30, 44), 1).astype(np.uint8)
        label[5:7, 4:9] = 2
        save(path, label)
    names = ["background", "kidney", "tumour"]
    description = describe_sets(place, tmp_path, classes=names)
    return place, folder.own_images.record(description.root)


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ("background, kidney, tumour", True),
        ("Background, Kidney, Tumour", True),
        ("background, Niere, Geschwulst", True),
        ("nothing, Niere, Geschwulst", True),
        ("background, tumour, kidney", False),
        ("background, kidney, cyst", False),
        ("background, cyst, kidney", False),
        ("nothing, kidney, tumour", False),
        ("kidney, background, stone", False),
    ],
)
def test_names_of_classes_are_the_networks_or_all_others(three, tmp_path, names, good):
    sets, like = three
    given = [name.strip() for name in names.split(",")]
    if good:
        description = describe_sets(sets, tmp_path, classes=given, like=like)
        assert folder.own_images.record(description.root).classes == tuple(given)
        return
    message = refused(sets, tmp_path, classes=given, like=like)
    assert "1 problem." in message
    assert "the network's names in their order, background, kidney, tumour" in message
    assert f"received {names}." in message


def test_two_classes_may_have_other_names_for_the_foreground(sets, tmp_path):
    like = folder.own_images.record(describe_sets(sets, tmp_path).root)
    names = ["background", "vessel"]
    description = describe_sets(sets, tmp_path, classes=names, like=like)
    assert folder.own_images.record(description.root).classes == (
        "background",
        "vessel",
    )
    wrong = refused(sets, tmp_path, classes=["foreground", "background"], like=like)
    assert "expected the network's names in their order" in wrong


def test_description_for_a_network_is_separate(three, tmp_path):
    sets, like = three
    names = list(like.classes)
    root = describe_sets(sets, tmp_path, classes=names).root
    written = (root / "dataset.json").read_text()
    pairs = json.loads(written)["cases"]
    # Named as before networks counted, so that what runs note of it stays true.
    assert root.name == f"own-{schema.digest([pairs, names])[:12]}"
    larger = dataclasses.replace(like, input_shape=(64, 64))
    colour = dataclasses.replace(like, channels=3)
    other = [
        describe_sets(sets, tmp_path, classes=names, like=network).root
        for network in (like, larger, colour)
    ]
    assert len({root, *other}) == 4
    assert (root / "dataset.json").read_text() == written
    assert folder.own_images.record(other[1]).input_shape == (64, 64)
    assert folder.own_images.record(other[2]).channels == 3
    assert describe_sets(sets, tmp_path, classes=names, like=like).root == other[0]


def test_one_folder_as_images_and_masks_is_refused(sets, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(sets[1])
    one = sets[1] / "a1_mask.png"
    for images, masks in [(sets[1], sets[1]), (link, sets[1]), (one, one)]:
        message = refused((images, masks), tmp_path)
        assert f"--masks {masks}: expected another folder or file" in message
        assert "received the same" in message


def test_moved_file_is_named_with_advice(sets, tmp_path):
    root = describe_sets(sets, tmp_path).root
    (sets[0] / "a1.png").rename(tmp_path / "a1.png")
    (problem,) = folder.own_images.check(root)
    assert "a1.png: expected a file, found none" in problem
    assert "`dscpp train` command with --images and --masks of today" in problem
    with pytest.raises(InputError, match="in its `dscpp train` command"):
        folder.own_images.locate(tmp_path)


def test_invalid_combinations_of_options_are_named(sets, tmp_path, capsys):
    given = ["--images", str(sets[0])]
    for arguments, message in [
        (["train", "--loss", "DSC", *given], "with both --images DIR and --masks"),
        (["train", "--loss", "DSC"], "expected --dataset NAME, or your own"),
        (["predict", "--run", "r", "--threshold", "0.3"], "--threshold: expected"),
        (["predict", "--model", "m"], "--model M with --images PATH and --output"),
        (["evaluate", "--run", "r", *given], "expected both --images DIR and --masks"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_more_than_32_classes_where_they_are_named(tmp_path):
    images, labels = tmp_path / "photos", tmp_path / "labels"
    numbers = np.arange(41).repeat(41).reshape(41, 41).astype(np.uint8)
    for name in ("a", "b", "c"):
        save(images / f"{name}.png", grey(numbers > 3, len(name)))
        save(labels / f"{name}.png", numbers)
    text = refused((images, labels), tmp_path)
    assert (
        "name the classes with --classes where one is absent, or where there are"
        in text
    )
    assert "JPEG" not in text
    names = tuple(f"c{k}" for k in range(41))
    description = describe_sets((images, labels), tmp_path, classes=names)
    assert folder.own_images.references(description.root, "a")["observer1"].max() == 40
    too_many = tuple(f"c{k}" for k in range(257))
    assert "expected at most 256" in refused(
        (images, labels), tmp_path, classes=too_many
    )


def test_the_description_is_parsed_once_not_for_each_case(sets, tmp_path, monkeypatch):
    root = describe_sets(sets, tmp_path).root
    parsed = []
    read = folder.read_json
    monkeypatch.setattr(
        folder, "read_json", lambda path: parsed.append(path) or read(path)
    )
    folder._parsed.cache_clear()
    for case in folder.own_images.cases(root):
        folder.own_images.references(root, case)
        folder.own_images.files(root, case)
    assert len(parsed) == 2  # dataset.json and reading.json
    about = {**json.loads((root / folder.ABOUT).read_text()), "title": "x"}
    (root / folder.ABOUT).write_text(json.dumps(schema.sealed(about)))
    assert folder.own_images.record(root).title == "x"  # one that changed is read again


def test_class_missing_from_a_part_is_reported(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in (0, 1, 2, 3, 4):
        save(sets[1] / f"a{number}_mask.png", np.zeros((30, 44), np.uint8))
    names = [f"a{number}" for number in range(8)]
    parts = {"training": names[:3], "validation": [names[3]], "test": names[4:]}
    Path("split.json").write_text(json.dumps(parts))
    command = ["verify", "--images", str(sets[0]), "--masks", str(sets[1])]
    assert main([*command, "--split", "split.json"]) == 0
    output = capsys.readouterr().out
    for part, count in (("training", 3), ("validation", 1)):
        text = f"{part}: none of its {count} label maps has the class foreground"
        assert text in output
    assert "test: none" not in output


def test_jpeg_label_map_is_named(sets, tmp_path):
    (sets[1] / "a0_mask.png").unlink()
    save(sets[1] / "a0_mask.jpg", grey(blob((30, 44), 0), 0))
    assert "JPEG blurs labels: save them as PNG." in refused(sets, tmp_path)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("background,kidney,kidney", "each once, received 'kidney'"),
        ("background,=1+1", "received '=1[+]1'; a spreadsheet takes"),
    ],
)
def test_invalid_class_names_are_refused(names, reason):
    with pytest.raises(InputError, match=f"--classes: .*{reason}"):
        class_names(Namespace(classes=names))


def brief(record):
    """As `tiny`; a training that is asked for more epochs ends by itself."""
    return dataclasses.replace(tiny(record), stopping_patience=5)


@pytest.mark.slow
def test_commands_of_own_images_page_run(tmp_path, monkeypatch, capsys):
    """Own images become tables and label maps as docs/own_images.md says.

    `test_own_volumes` types the same for volumes.
    """
    monkeypatch.chdir(tmp_path)
    write_sets(tmp_path)
    shutil.copytree("photos", "OTHER")
    shutil.copytree("labels", "OTHER-LABELS")
    for number in range(8, 16):
        mask = blob((33, 41), number)
        save(tmp_path / "NEW" / f"x{number}.png", grey(mask, number))
        label = labelled(mask, number).astype(np.uint8)
        save(tmp_path / "NEW-LABELS" / f"x{number}.png", label)
    own_page.type_all(monkeypatch, brief, "DSC++")
    output = capsys.readouterr().out
    assert "own-clinic-a, foreground, preset reduced (epochs=20)" in output
    for place in ("tables", "results/own-clinic-a/reduced", "comparison"):
        assert len(rows(Path(place) / "table.csv")) >= 10, place
    joined = {row["loss"] for row in rows(Path("comparison/table.csv"))}
    assert joined == {"DSC++", "DSC++ [epochs=20]"}
    for place in ("OUT", "SCALED"):
        assert Image.open(Path(place) / "x8.png").size == (41, 33)
    assert Path("RUN/other-sets/clinic-b/cases.csv").is_file()
