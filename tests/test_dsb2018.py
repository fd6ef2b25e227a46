"""2018DSB: one mask a nucleus, RGBA images, several sizes, in a zip or a folder."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from imitations import verify
from PIL import Image

from data_io import datasets, splits
from data_io.datasets.dsb2018 import dsb2018
from data_io.errors import InputError
from data_io.prepare.interface import RawInterface
from pipelines.training import protocol

SIZES = [(20, 24), (20, 24), (36, 16), (18, 30)]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_case(root: Path, case: str, size: tuple[int, int], seed: int) -> None:
    """An image and two nuclei: 3 x 4 pixels at row 2, 5 x 2 pixels at row 8."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*size, 4), dtype=np.uint8)
    image[..., 3] = 255
    write(root / case / "images" / f"{case}.png", image)
    for number, (rows, columns) in enumerate(
        [(slice(2, 5), slice(3, 7)), (slice(8, 13), slice(9, 11))]
    ):
        mask = np.zeros(size, np.uint8)
        mask[rows, columns] = 255
        write(root / case / "masks" / f"nucleus{number}.png", mask)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of three sizes."""
    for number, size in enumerate(SIZES):
        write_case(tmp_path / "stage1_train", f"image{number}", size, number)
    return tmp_path / "stage1_train"


def problems(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        verify(dsb2018, root)
    return str(caught.value)


def test_the_record_is_the_papers() -> None:
    assert datasets.by_name("dsb2018") is dsb2018
    assert dsb2018.RECORD.cases == 670
    assert splits.sizes(670, dsb2018.RECORD.counts, "") == dsb2018.RECORD.counts
    assert protocol.preset("paper", dsb2018.RECORD).input_shape == (256, 256)
    reduced = protocol.preset("reduced", dsb2018.RECORD)
    assert (reduced.input_shape, reduced.filters) == ((128, 128), 16)
    assert reduced.epochs <= 25


def test_a_case(root: Path) -> None:
    label = dsb2018.references(root, "image2")["observer1"]
    assert label.shape == (36, 16) and label.dtype == np.uint8
    assert label.sum() == 3 * 4 + 5 * 2 and label[4, 6] == label[8, 9] == 1
    assert dsb2018.regions(root, "image2")["image"].sum() == 36 * 16
    names = [path.name for path in dsb2018.files(root, "image2")]
    assert names == ["image2.png", "nucleus0.png", "nucleus1.png"]
    source = RawInterface(dsb2018, root)
    assert source.initialize() == ["image0", "image1", "image2", "image3"]
    image, _ = source.load_image("image2")
    assert image.shape == (36, 16, 3)
    np.testing.assert_array_equal(source.load_segmentation("image2"), label)


def test_found_in_folders_and_zips(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dsb2018.locate(root) == root
    assert dsb2018.locate(tmp_path) == root
    kept = root.rename(tmp_path / "elsewhere")
    for inside in ("", "stage1_train/"):
        with zipfile.ZipFile(tmp_path / "stage1_train.zip", "w") as archive:
            for file in sorted(kept.rglob("*.png")):
                archive.write(file, f"{inside}{file.relative_to(kept)}")
        assert len(dsb2018.cases(dsb2018.locate(tmp_path))) == 4
    (tmp_path / "stage1_train.zip").unlink()
    shutil.rmtree(kept)
    with pytest.raises(InputError, match="BBBC038"):
        dsb2018.locate(tmp_path)


def test_report(root: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    report = verify(dsb2018, root, state)
    assert report.counts == {"to be split": 4} and report.decoded == 8
    assert report.sizes == {(20, 24): 2, (36, 16): 1, (18, 30): 1}
    shares = [22 / (rows * columns) for rows, columns in SIZES]
    assert report.foreground["observer1"] == pytest.approx(np.mean(shares))
    assert any("4 cases, the whole data set has 670" in w for w in report.warnings)
    again = verify(dsb2018, root, state)
    assert (again.decoded, again.skipped) == (0, 8)
    assert again.warnings == report.warnings


def test_a_changed_mask_is_decoded_again(root: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    verify(dsb2018, root, state)
    (root / "image1" / "masks" / "nucleus0.png").unlink()
    report = verify(dsb2018, root, state)
    assert (report.decoded, report.skipped) == (1, 7)


def test_overlaps_and_empty_masks_are_warnings(root: Path) -> None:
    mask = np.zeros(SIZES[0], np.uint8)
    write(root / "image0" / "masks" / "nucleus2.png", mask)
    mask[2:5, 6:9] = 255  # its first column lies in nucleus 0: 3 pixels
    write(root / "image0" / "masks" / "nucleus3.png", mask)
    warnings = verify(dsb2018, root).warnings
    empty = "1 masks of single objects are empty, such as image0/masks/nucleus2.png"
    assert empty in warnings
    assert (
        "1 of 4 images have masks of single objects that overlap (3 pixels, each "
        "counted once), such as image0"
    ) in warnings
    assert dsb2018.references(root, "image0")["observer1"].sum() == 22 + 9 - 3


def test_all_problems_in_one_message(root: Path) -> None:
    (root / "image0" / "images" / "image0.png").unlink()
    shutil.rmtree(root / "image1" / "masks")
    write(root / "image2" / "masks" / "other.png", np.ones((5, 6), np.uint8))
    image = np.full((*SIZES[3], 4), 200, np.uint8)
    write(root / "image3" / "images" / "image3.png", image)
    found = problems(root)
    assert "4 problems" in found
    assert "image0/images/image0.png: expected a file, found none" in found
    assert "image1/masks: expected a mask for each nucleus" in found
    assert "image2/masks/other.png: expected (36, 16)" in found
    assert "image3/images/image3.png" in found and "transparent" in found


def test_mask_of_another_size_is_named(root: Path) -> None:
    write(root / "image0" / "images" / "image0.png", np.zeros((21, 24, 3), np.uint8))
    assert "expected 21 rows x 24 columns, the size of its image" in problems(root)


def test_grey_and_deep_images_are_named(root: Path) -> None:
    write(root / "image0" / "images" / "image0.png", np.zeros(SIZES[0], np.uint8))
    write(root / "image1" / "images" / "image1.png", np.zeros(SIZES[1], np.uint16))
    found = problems(root)
    assert "image0.png: expected an RGB image, found mode L" in found
    assert "image1.png: expected an RGB image, found mode I;16" in found


def test_another_data_set_is_not_taken_for_2018dsb(tmp_path):
    (tmp_path / "DRIVE" / "training" / "images").mkdir(parents=True)
    (tmp_path / "DRIVE" / "test" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="2018DSB: expected the data set in"):
        dsb2018.locate(tmp_path / "DRIVE")
