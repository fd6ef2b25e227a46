"""BUS2017, ISIC2018, CVC-ClinicDB: the raw layouts, and what differs between copies."""

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path

import imitations
import numpy as np
import pytest
import written_runs
from imitations import verify
from PIL import Image

from data_io import datasets, splits
from data_io.datasets.bus2017 import bus2017
from data_io.datasets.cvc_clinicdb import (
    FIRST,
    SEQUENCES,
    cvc_clinicdb,
    cvc_clinicdb_sequence,
    sequence,
)
from data_io.datasets.isic2018 import isic2018
from data_io.errors import InputError
from data_io.prepare.interface import RawInterface
from pipelines.cli import main
from pipelines.reporting import pages
from pipelines.training import protocol

# From the table on the data set's page: sequence, first and last frame.
PUBLISHED = """
1 1-25, 2 26-50, 3 51-67, 4 68-78, 5 79-103, 6 104-126, 7 127-151, 8 152-177,
9 178-199, 10 200-205, 11 206-227, 12 228-252, 13 253-277, 14 278-297, 15 298-317,
16 318-342, 17 343-363, 18 364-383, 19 384-408, 20 409-428, 21 429-447, 22 448-466,
23 467-478, 24 479-503, 25 504-528, 26 529-546, 27 547-571, 28 572-591, 29 592-612
"""
# Two frames of every third sequence, and one more.
FRAMES = tuple(n for start in FIRST[:-1:3] for n in (start, start + 1))


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    return imitations.write_bus2017(tmp_path)


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    return imitations.write_isic2018(tmp_path)


@pytest.fixture
def cvc(tmp_path: Path) -> Path:
    return imitations.write_cvc_clinicdb(tmp_path, FRAMES[:6])


def problems(module, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        verify(module, root)
    return str(caught.value)


def warnings(module, root: Path) -> str:
    return "\n".join(verify(module, root).warnings)


@pytest.mark.parametrize(
    ("name", "title", "counts", "shape"),
    [
        ("bus2017", "BUS2017", (104, 26, 33), (128, 128)),
        ("isic2018", "ISIC2018", (1661, 415, 518), (512, 512)),
        ("cvc-clinicdb", "CVC-ClinicDB", (392, 98, 122), (288, 384)),
    ],
)
def test_the_records_are_table_1s(name, title, counts, shape, project) -> None:
    record = datasets.by_name(name).RECORD
    assert (record.name, record.title) == (name, title)
    assert tuple(splits.sizes(record.cases, record.counts, "").values()) == counts
    assert protocol.preset("paper", record).input_shape == shape
    reduced = protocol.preset("reduced", record)
    assert np.prod(reduced.input_shape) <= np.prod(shape) and reduced.filters < 32
    with (project / "results" / "paper" / "table4.csv").open() as file:
        assert title in {row["dataset"] for row in csv.DictReader(file)}


def test_bus2017_in_every_known_layout(bus: Path, tmp_path: Path) -> None:
    assert bus2017.locate(tmp_path) == bus2017.locate(bus) == bus
    cases = bus2017.cases(bus)
    assert cases == tuple(f"{n:06d}" for n in range(1, 7))
    source = RawInterface(bus2017, bus)
    modes = set()
    for number, case in enumerate(cases, 1):
        path = bus2017.roles(bus, case)["image"]
        with Image.open(path) as image:
            modes.add(image.mode)
        mask = imitations.blob((90 + 7 * number, 130 - 5 * number), number)
        grey = imitations.shaded(mask, number, 50, 130)
        pixels, _ = source.load_image(case)
        assert pixels.dtype == np.uint8 and pixels.shape == (*mask.shape, 3)
        np.testing.assert_array_equal(pixels, np.repeat(grey[..., None], 3, -1))
        label = source.load_segmentation(case)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, mask)
        assert bus2017.regions(bus, case)["image"].shape == mask.shape
    assert modes == {"L", "RGB", "RGBA", "P"}
    report = verify(bus2017, bus)
    assert report.values == {"observer1": {0, 1, 255}}
    text = "\n".join(report.warnings)
    assert "3 of 6 images are not RGB (mode L, P): read as RGB, such as 000001" in text
    assert "6 cases, the whole data set has 163" in text


def test_isic2018_with_extra_files(isic: Path) -> None:
    assert isic2018.cases(isic)[:2] == ("ISIC_0000003", "ISIC_0000010")
    label = isic2018.references(isic, "ISIC_0000010")["observer1"]
    np.testing.assert_array_equal(label, imitations.blob((106, 134), 101))
    names = [path.name for path in isic2018.files(isic, "ISIC_0000003")]
    assert names == ["ISIC_0000003.jpg", "ISIC_0000003_segmentation.png"]
    (isic / "__MACOSX").mkdir()
    text = warnings(isic2018, isic)
    assert "ATTRIBUTION.txt" in text and "ISIC_0000003_superpixels.png" in text
    assert "greys" not in text


def test_jpeg_mask_is_cut_at_half_with_a_warning(isic: Path) -> None:
    masks = isic / "ISIC2018_Task1_Training_GroundTruth"
    expected = 0
    for case in ("ISIC_0000003", "ISIC_0000017"):
        path = masks / f"{case}_segmentation.png"
        true = isic2018.references(isic, case)["observer1"]
        Image.open(path).save(path.with_suffix(".JPEG"), quality=60)
        path.unlink()
        stored = np.asarray(Image.open(path.with_suffix(".JPEG")))
        expected += int(((stored > 0) & (stored < 255)).sum())
        mask = isic2018.references(isic, case)["observer1"]
        np.testing.assert_array_equal(mask, stored >= 128)
        np.testing.assert_array_equal(mask, true)  # artefacts stay below half
    assert expected > 100
    text = warnings(isic2018, isic)
    assert f"2 of 6 masks have greys ({expected} pixels between 0 and 255)" in text


def test_class_numbers_are_not_treated_as_greys(isic: Path) -> None:
    path = isic2018.roles(isic, "ISIC_0000003")["observer1"]
    classes = np.zeros((96, 128), np.uint8)
    classes[20:40, 20:60], classes[50:60, 20:60] = 1, 2
    imitations.save(path, classes)
    lines = problems(isic2018, isic)
    assert "0 and one other value, found the values 0, 1, 2" in lines
    with pytest.raises(InputError, match="expected a mask of 0 and one other value"):
        isic2018.references(isic, "ISIC_0000003")


def test_lesion_that_fills_the_image_is_accepted(isic: Path) -> None:
    path = isic2018.roles(isic, "ISIC_0000003")["observer1"]
    imitations.save(path, np.full((96, 128), 255, np.uint8))
    report = verify(isic2018, isic)
    assert report.values == {"observer1": {0, 255}}
    assert isic2018.references(isic, "ISIC_0000003")["observer1"].all()
    imitations.save(path, np.zeros((96, 128), np.uint8))
    such = "masks have no foreground, such as ISIC2018_Task1_Training_GroundTruth/"
    assert f"{such}ISIC_0000003_segmentation.png" in warnings(isic2018, isic)


@pytest.mark.parametrize("part", ["TIF", "PNG", None])
def test_cvc_in_its_distributions(cvc: Path, part: str | None) -> None:
    before = cvc_clinicdb.references(cvc, "2")["observer1"]
    if part:
        for name in ("Original", "Ground Truth"):
            (cvc / part).mkdir(exist_ok=True)
            shutil.move(cvc / name, cvc / part / name)
        for path in list((cvc / part).rglob("*.tif")):
            if part == "PNG":
                Image.open(path).save(path.with_suffix(".png"))
                path.unlink()
            else:
                path.rename(path.with_suffix(".TIF"))
        (cvc / "metadata.csv").write_text("frame_id,sequence_id\n1,1\n")
    assert cvc_clinicdb.locate(cvc.parent) == cvc
    assert cvc_clinicdb.cases(cvc) == ("1", "2", "68", "69", "127", "128")
    np.testing.assert_array_equal(
        cvc_clinicdb.references(cvc, "2")["observer1"], before
    )
    report = verify(cvc_clinicdb, cvc)
    assert report.sizes == {(288, 384): 6}
    assert "Thumbs.db" not in "\n".join(report.warnings)


def test_a_zip_is_unpacked(cvc: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "CVC-ClinicDB.zip", "w") as archive:
        for path in sorted(cvc.rglob("*.tif")):
            archive.write(path, path.relative_to(tmp_path))
    shutil.rmtree(cvc)
    assert len(cvc_clinicdb.cases(cvc_clinicdb.locate(tmp_path))) == 6


def test_missing_data_say_where_to_get_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (bus2017, isic2018, cvc_clinicdb):
        with pytest.raises(InputError) as caught:
            module.locate(None)
        assert module.RECORD.access in str(caught.value)
        assert str(module.DEFAULT) in str(caught.value)


def test_all_problems_are_reported_together(bus: Path) -> None:
    (bus / "GT" / "000001.png").unlink()
    (bus / "original" / "000002.png").unlink()
    imitations.save(bus / "GT" / "000003.png", np.zeros((8, 9), np.uint8))
    shutil.copy(bus / "original" / "000005.png", bus / "original" / "5.tif")
    shutil.copy(bus / "original" / "000005.png", bus / "original" / "000005 (1).png")
    (bus / "original" / "000006.png").write_bytes(b"")
    colours = np.random.default_rng(0).integers(0, 255, (118, 110, 3), dtype=np.uint8)
    imitations.save(bus / "GT" / "000004.png", colours)
    lines = problems(bus2017, bus)
    for expected in (
        "GT/000001.png: expected a file, found none",
        "original/000002.png: expected a file, found none",
        "GT/000003.png: expected 111 rows x 115 columns, the size of its image",
        "original/5.tif: expected one file of this case, found 000005.png too",
        "original/000005 (1).png: expected names such as 000001.png, found another",
        "original/000006.png: expected a whole PNG image, found an empty file",
        "GT/000004.png: expected a mask of one channel, found mode RGB",
    ):
        assert expected in lines, lines


def test_one_id_in_two_formats_is_a_problem(cvc: Path) -> None:
    path = cvc / "Ground Truth" / "68.tif"
    Image.open(path).save(path.with_suffix(".png"))
    imitations.save(cvc / "Original" / "613.tif", np.zeros((288, 384, 3), np.uint8))
    lines = problems(cvc_clinicdb, cvc)
    assert "68.tif: expected one file of this case, found 68.png too" in lines
    assert "Original/613.tif: expected a frame from 1 to 612" in lines


def test_missing_masks_are_one_problem(cvc: Path) -> None:
    shutil.rmtree(cvc / "Ground Truth")
    lines = problems(cvc_clinicdb, cvc)
    assert "expected 6 files in Ground Truth (1.tif to 128.tif), found 0" in lines


def test_the_sequences_are_the_published_ones() -> None:
    rows = [row.split() for row in PUBLISHED.replace("\n", " ").split(",")]
    assert len(rows) == len(SEQUENCES) == 29
    for (number, ends), frames in zip(rows, SEQUENCES, strict=True):
        first, last = map(int, ends.split("-"))
        assert (frames[0], frames[-1]) == (first, last)
        assert sequence(str(first)) == f"sequence {number}"
        assert sequence(f"{last:03d}") == f"sequence {number}"
    assert sum(map(len, SEQUENCES)) == 612
    assert sequence("0") == sequence("613") == ""


@pytest.fixture
def cvc_root() -> Path:
    """The real CVC-ClinicDB; what needs it is skipped where it is absent."""
    folder = Path(os.environ.get("DSCPP_CVC_CLINICDB", "data/CVC-ClinicDB"))
    if not folder.is_dir():
        pytest.skip("CVC-ClinicDB is not here: set DSCPP_CVC_CLINICDB")
    return cvc_clinicdb.locate(folder)


def test_frames_confirm_the_published_sequences(cvc_root: Path) -> None:
    """Where a sequence begins, frames stop being alike, and the border may change.

    Alike: the share of a histogram of colours that two frames have in common, and the
    correlation of the frames at 24x18; the most alike of five frames on either side.
    """
    frames = [
        Image.fromarray(cvc_clinicdb.image(cvc_root, str(number)))
        for number in range(1, 613)
    ]
    border = np.array([np.asarray(f)[:, :20].mean((0, 1)) for f in frames])
    colours = np.array([_colours(frame) for frame in frames])
    shapes = np.array([_shape(frame) for frame in frames])
    alike = np.array([np.minimum(colours, own).sum(1) for own in colours])
    alike += shapes @ shapes.T
    at = np.arange(2, 613)
    most = np.array([alike[max(k - 6, 0) : k - 1, k - 1 : k + 4].max() for k in at])
    begins = np.isin(at, FIRST)
    assert most[begins].max() < np.quantile(most[~begins], 0.05)
    step = np.abs(np.diff(border, axis=0)).max(axis=1)
    assert set(at[step > 5]) < set(FIRST) and step[~begins].max() < 2
    # Another cut, to another polyp, within sequence 8; that at 438 the eye alone sees.
    assert most[173 - 2] < most[begins].max()


def _colours(frame: Image.Image) -> np.ndarray:
    red, green, blue = np.moveaxis(np.asarray(frame)[40:264, 64:340] // 32, -1, 0)
    code = (red.astype(int) * 8 + green) * 8 + blue
    return np.bincount(code.ravel(), minlength=512) / code.size


def _shape(frame: Image.Image) -> np.ndarray:
    small = frame.crop((64, 40, 340, 264)).resize((24, 18), Image.Resampling.BOX)
    values = np.asarray(small, float)
    values -= values.mean((0, 1))
    return (values / np.linalg.norm(values)).ravel()


@pytest.fixture(scope="module")
def empty_frames(tmp_path_factory) -> Path:
    """All 612 names, each file with its own bytes: a split opens no image."""
    root = tmp_path_factory.mktemp("frames") / "CVC-ClinicDB"
    for part in ("Original", "Ground Truth"):
        (root / part).mkdir(parents=True)
        for number in range(1, 613):
            (root / part / f"{number}.tif").write_text(f"{part} {number}")
    return root


@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_lies_in_two_parts(empty_frames: Path, seed: int) -> None:
    split = splits.of(cvc_clinicdb_sequence, empty_frames, seed)
    sizes = {part: len(ids) for part, ids in split.items()}
    assert sum(sizes.values()) == 612
    # Half the longest sequence, 26 frames, is the most that a part can be off.
    assert abs(sizes["test"] - 122) <= 13 and abs(sizes["validation"] - 98) <= 13
    groups = cvc_clinicdb.groups(empty_frames)
    parts = [{groups[case] for case in ids} for ids in split.values()]
    assert sum(map(len, parts)) == 29


def test_the_random_split_has_table_1s_sizes_and_leaks(empty_frames: Path) -> None:
    split = splits.of(cvc_clinicdb, empty_frames, 0)
    assert {part: len(ids) for part, ids in split.items()} == {
        "training": 392,
        "validation": 98,
        "test": 122,
    }
    groups = cvc_clinicdb.groups(empty_frames)
    seen = {groups[case] for case in split["training"]}
    assert sum(groups[case] in seen for case in split["test"]) > 100


def test_the_two_splits_are_two_data_sets() -> None:
    one, other = cvc_clinicdb.RECORD, cvc_clinicdb_sequence.RECORD
    assert one.split_by == "" and other.split_by == "sequence"
    assert one.title != other.title and one.name != other.name


def test_split_by_names_the_other_data_set(capsys) -> None:
    assert datasets.split_by("CVC-ClinicDB", "sequence") == "cvc-clinicdb-sequence"
    train = ["train", "--loss", "CE", "--split-by"]
    for arguments, expected in (
        (["sequence", "--dataset", "bus2017"], "tell such groups (cvc-clinicdb)"),
        (
            ["patient", "--dataset", "cvc-clinicdb"],
            "(none does), received cvc-clinicdb",
        ),
        (["sequence", "--images", "a", "--masks", "b"], "received own images"),
        (["sequence", "--dataset", "cvc-clinicdb", "--data", "no"], "found no such"),
    ):
        assert main([*train, *arguments]) == 2
        assert expected in capsys.readouterr().err


def pictures(number: int, size: tuple[int, int]) -> dict:
    """Images with masks, by name, as the authors' copies have them."""
    by_name = {}
    for n in range(number):
        mask = imitations.blob(size, n)
        image = np.repeat(imitations.shaded(mask, n, 60, 140)[..., None], 3, -1)
        by_name[f"case_{n}"] = image, mask
    return by_name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bus2017", (60, 72)),
        ("isic2018", (60, 72)),
        ("cvc-clinicdb", (288, 384)),
        ("dsb2018", (60, 72)),
        ("drive", (584, 565)),
    ],
)
def test_data_prepared_by_the_authors_script_are_accepted(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    given = pictures(11, size)
    imitations.write_prepared(tmp_path / "prepared", given)
    module = datasets.by_name(name)
    root = module.locate(tmp_path / "prepared")
    cases = splits.cases(module, root)
    assert cases == tuple(given) and cases[-1] == "case_10"
    report = verify(module, root)
    assert report.counts == {"to be split": 11} and report.decoded == 22
    source = RawInterface(module, root)
    assert source.initialize() == list(given)
    image, mask = given["case_10"]
    np.testing.assert_array_equal(source.load_image("case_10")[0], image)
    np.testing.assert_array_equal(source.load_segmentation("case_10"), mask)
    regions = module.regions(root, "case_10")
    assert list(regions) == ["image"] and regions["image"].shape == size
    names = [path.name for path in module.files(root, "case_10")]
    assert names == ["imaging.png", "segmentation.png"]
    (root / "case_3" / "segmentation.png").unlink()
    assert "case_3/segmentation.png: expected a file" in problems(module, root)


def test_authors_layout_needs_a_split_file(tmp_path: Path) -> None:
    root = imitations.write_prepared(tmp_path / "p", pictures(6, (30, 40)))
    with pytest.raises(InputError, match=r"--split sample_list.json testing.json"):
        splits.of(datasets.by_name("drive"), root, 0)
    assert cvc_clinicdb.groups(root) == {}
    with pytest.raises(InputError, match="which sequence a case is of"):
        splits.of(cvc_clinicdb_sequence, root, 0)
    lists = {
        "sample_list.json": {
            "TRAINING": ["case_0", "case_1"],
            "VALIDATION": ["case_2"],
        },
        "testing.json": {"TRAINING": [], "VALIDATION": ["case_4", "case_5"]},
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(json.dumps(text))
    files = [tmp_path / name for name in lists]
    for name in ("drive", "cvc-clinicdb-sequence"):
        split = splits.of(datasets.by_name(name), root, 0, files)
        assert split["test"] == ("case_4", "case_5")


@pytest.mark.parametrize("name", ["bus2017", "isic2018", "cvc-clinicdb"])
def test_written_runs_fill_the_papers_cells(name: str, tmp_path: Path, project) -> None:
    record = datasets.by_name(name).RECORD
    with (project / "results" / "paper" / "table4.csv").open() as file:
        printed = {
            row["loss"]: float(row["value"])
            for row in csv.DictReader(file)
            if (row["dataset"], row["metric"]) == (record.title, "nll")
        }
    for loss, gamma, seed in (("DSC", None, 0), ("DSC++", 2.0, 0), ("DSC++", 2.0, 1)):
        written_runs.make_run(
            tmp_path,
            loss,
            [printed[loss] + shift for shift in (-0.01, 0, 0, 0.01)],
            gamma=gamma,
            seed=seed,
            dataset=name,
            title=record.title,
            targets=record.classes[1:],
        )
    pages.Report(tmp_path).write()
    rows = written_runs.read(tmp_path / "table4.csv")
    ours = [row for row in rows if row["dataset"] == record.title]
    assert len(ours) == 16
    for loss, value in printed.items():
        row = written_runs.one(ours, loss=loss, metric="nll_published")
        assert float(row["published"]) == value
        if loss.startswith("DSC"):
            assert float(row["mean"]) == pytest.approx(value, rel=1e-4)
            assert (row["verdict"], row["preset"]) == ("within", "paper")
        else:
            assert row["verdict"] == "not run"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("bus2017", "lesion"),
        ("isic2018", "lesion"),
        ("cvc-clinicdb", "polyp"),
        ("cvc-clinicdb-sequence", "polyp"),
    ],
)
@pytest.mark.slow
def test_from_files_to_tables(name, target, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "bus2017":
        imitations.write_bus2017(tmp_path)
    elif name == "isic2018":
        imitations.write_isic2018(tmp_path)
    else:
        imitations.write_cvc_clinicdb(tmp_path, FRAMES[:8])
    tiny = protocol.Protocol((32, 32), filters=2, depth=1, epochs=1)
    monkeypatch.setitem(protocol.PRESETS, "reduced", lambda record: tiny)
    data = ["--dataset", name, "--data", str(tmp_path)]
    run = Path("results") / name / "reduced" / "runs" / "ce-s0"
    assert main(["verify", *data]) == 0
    assert main(["train", *data, "--preset", "reduced", "--loss", "CE"]) == 0
    assert main(["predict", "--run", str(run), *data[2:]]) == 0
    assert main(["evaluate", "--run", str(run), *data[2:]]) == 0
    assert main(["tables"]) == 0
    out = capsys.readouterr().out
    assert ": OK" in out
    split = json.loads((run / "run.json").read_text())["split"]
    test = str(len(split["test"]))
    folder = run.parent.parent
    # The paper has cells of its own split alone.
    published = not name.endswith("sequence")
    with (folder / ("table4.csv" if published else "table.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "dice"]
    ours = [row for row in rows if row["n"]]
    assert {(r["loss"], r["target"], r["n"]) for r in ours} == {("CE", target, test)}
    assert len(rows) == (4 if published else 1)
    assert Path("results/table4.csv").exists() == published
    if published:
        with Path("results/table4.csv").open() as file:
            cells = [row for row in csv.DictReader(file) if row["preset"]]
        title = datasets.by_name(name).RECORD.title
        keys = {(row["dataset"], row["preset"], row["loss"]) for row in cells}
        assert keys == {(title, "reduced", "CE")}
