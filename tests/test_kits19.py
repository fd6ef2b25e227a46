"""KiTS19 is read as distributed, and all problems are reported together."""

import gzip

import imitations
import nibabel
import numpy as np
import pytest

from data_io import datasets, splits
from data_io.datasets.kits19 import kits19
from data_io.errors import InputError
from data_io.prepare.cache import prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.preprocessing import Settings
from data_io.verification import verify
from pipelines.training import protocol

# After data_io.prepare.cache: with miscnn_compat's stand-ins it can be imported.
from miscnn.data_loading.interfaces.nifti_io import NIFTI_interface  # isort: skip

AFFINE = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-5.0, 0, 0, 0], [0, 0, 0, 1]])
SHAPE = (6, 20, 24)


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def save_without_qform(path, array):
    """Writes a volume whose affine gives one axis no extent; nibabel refuses to."""
    save(path, array)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:328] = (AFFINE * [1, 1, 0, 1])[:3].astype("<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def write(root, numbers, seed=0):
    """Writes an imitation: true layout, made-up content, several sizes."""
    random = np.random.default_rng(seed)
    for number in numbers:
        shape = (SHAPE[0] + number % 3, *SHAPE[1:])
        folder = root / f"case_{number:05d}"
        image = random.integers(-1024, 1500, shape).astype(np.int16)
        label = np.digitize(image, (800, 1200)).astype(np.uint8)
        save(folder / "imaging.nii.gz", image)
        save(folder / "segmentation.nii.gz", label)
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "kits19" / "data", range(5))


def test_clone_data_folder_and_zip_are_accepted(root):
    for place in (root, root.parent, root.parent.parent):
        assert kits19.locate(place) == root
    flat = write(root.parent.parent / "other" / "kits19", [0])
    assert kits19.locate(flat.parent) == flat
    with pytest.raises(InputError, match=r"starter_code\.get_imaging"):
        kits19.locate(root / "case_00000")


def test_the_papers_cases_are_204(tmp_path):
    for number in range(300):
        (tmp_path / f"case_{number:05d}").mkdir()
    (tmp_path / "LICENSE").touch()
    found = kits19.cases(tmp_path)
    assert len(found) == 204
    excluded = {f"case_{number:05d}" for number in (15, 23, 37, 68, 125, 133)}
    assert not excluded & set(found)
    assert found[-1] == "case_00209"
    remarks = "\n".join(kits19.remarks(tmp_path))
    assert "case_00015, case_00023, case_00037" in remarks
    assert "90 cases from case_00210 on have no labels" in remarks
    assert "not the paper's" not in remarks
    sizes = splits.sizes(len(found), kits19.RECORD.counts, "KiTS19")
    assert sizes == {"training": 130, "validation": 33, "test": 41}


def test_the_record_is_the_papers_and_the_released_codes():
    record = datasets.by_name("kits19").RECORD
    assert (record.input_shape, record.channels) == ((80, 160, 160), 1)
    assert record.classes == ("background", "kidney", "kidney tumour")
    assert (record.spacing_mm, record.clip) == ((3.22, 1.62, 1.62), (-79, 304))
    paper = protocol.preset("paper", record)
    assert (paper.plateau_patience, paper.stopping_patience) == (5, 10)
    assert (paper.filters, paper.depth) == (32, 4)
    reduced = protocol.preset("reduced", record)
    assert (reduced.input_shape, reduced.filters) == ((40, 80, 80), 8)
    assert reduced.epochs <= 60
    assert all(size % 2**reduced.depth == 0 for size in reduced.input_shape)


def test_values_axes_and_spacing_as_in_the_files(root):
    source = RawInterface(kits19, root)
    assert (source.channels, source.classes, source.three_dim) == (1, 3, True)
    image, details = source.load_image("case_00001")
    stored = nibabel.load(root / "case_00001" / "imaging.nii.gz")
    np.testing.assert_array_equal(image[..., 0], stored.get_fdata())
    np.testing.assert_allclose(details["spacing"], (5, 0.8, 0.8), rtol=1e-6)
    np.testing.assert_allclose(details["affine"], AFFINE, rtol=1e-6)
    label = source.load_segmentation("case_00001")[..., 0]
    np.testing.assert_array_equal(
        label, kits19.references(root, "case_00001")["observer1"]
    )
    assert kits19.geometry(root, "case_00001").shape == (7, 20, 24)
    region = kits19.regions(root, "case_00001")["image"]
    assert region.shape == (7, 20, 24) and region.all()


def test_spacing_is_what_miscnn_reads(root):
    theirs = NIFTI_interface(channels=1, classes=3)
    theirs.initialize(str(root))
    image, details = theirs.load_image("case_00002")
    ours, own = RawInterface(kits19, root).load_image("case_00002")
    np.testing.assert_array_equal(ours[..., 0], image)
    np.testing.assert_array_equal(own["spacing"], details["spacing"])


def test_the_cache_holds_whole_volumes_resampled_clipped_z_scored(root, tmp_path):
    settings = Settings.of(kits19.RECORD, (40, 80, 80))
    cache = prepare(kits19, root, kits19.cases(root), settings, tmp_path / "cache")
    image, label = cache.image("case_00001"), cache.label("case_00001")
    # 7 x 5 / 3.22 = 10.9, 20 x 0.8 / 1.62 = 9.9, 24 x 0.8 / 1.62 = 11.9
    assert image.shape == (10, 9, 11, 1) and label.shape == (10, 9, 11)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    assert isinstance(image, np.memmap)
    assert cache.native_shape("case_00001") == (7, 20, 24)
    np.testing.assert_allclose([image.mean(), image.std()], [0, 1], atol=1e-5)
    # Clipped at both ends: the extremes are shared by many voxels.
    assert (image == image.max()).sum() > 5 and (image == image.min()).sum() > 5
    assert set(np.unique(label)) == {0, 1, 2}


def test_a_patch_of_another_size_needs_no_other_cache(root):
    settings = [Settings.of(kits19.RECORD, (n, 2 * n, 2 * n)) for n in (40, 80)]
    assert settings[0].prepared() == settings[1].prepared()
    other = Settings((40, 80, 80), spacing_mm=(3.0, 1.62, 1.62), clip=(-79, 304))
    assert other.prepared() != settings[0].prepared()


def test_complete_data_set_passes(root):
    report = imitations.verify(kits19, root)
    assert report.values["observer1"] == {0, 1, 2}
    assert report.sizes == {(6, 20, 24): 2, (7, 20, 24): 2, (8, 20, 24): 1}
    assert "5 cases, not the paper's 204" in "\n".join(report.warnings)
    assert "8 slices x 20 rows x 24 columns" in str(report)


def test_second_check_decodes_nothing(root, tmp_path):
    state = tmp_path / "state.json"
    assert imitations.verify(kits19, root, state).decoded == 10
    again = imitations.verify(kits19, root, state)
    assert (again.decoded, again.skipped) == (0, 10)


def test_every_problem_is_named_at_once(root):
    write(root, range(5, 9))
    random = np.random.default_rng(1)
    path = root / "case_00000" / "imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:-400])
    broken = random.normal(size=(7, 20, 24)).astype(np.float32)
    broken[1, 2, 3], broken[2, 3, 4] = np.nan, np.inf
    save(root / "case_00001" / "imaging.nii.gz", broken)
    save(root / "case_00002" / "segmentation.nii.gz", np.zeros((8, 20, 23), np.uint8))
    save(root / "case_00003" / "segmentation.nii.gz", np.full(SHAPE, 7, np.uint8))
    flipped = AFFINE * [1, -1, 1, 1]
    label = np.eye(20, 24, dtype=np.uint8)[np.newaxis].repeat(7, axis=0)
    save(root / "case_00004" / "segmentation.nii.gz", label, flipped)
    flat = np.zeros((8, 20, 24), np.int16)
    save_without_qform(root / "case_00005" / "imaging.nii.gz", flat)
    save(root / "case_00006" / "imaging.nii.gz", flat[:6], AFFINE * 1000)
    (root / "case_00007" / "segmentation.nii.gz").unlink()
    with pytest.raises(InputError) as caught:
        imitations.verify(kits19, root)
    message = str(caught.value)
    for text in (
        "case_00000/imaging.nii.gz: expected a whole NIfTI volume",
        "case_00001/imaging.nii.gz: expected numbers, found 2 voxels that are NaN",
        "case_00002/segmentation.nii.gz: expected 8 x 20 x 24 voxels, as its "
        "image, found 8 x 20 x 23",
        "case_00003/segmentation.nii.gz: expected the values 0, 1, 2 (background, "
        "kidney, kidney tumour), found 7",
        "case_00004/segmentation.nii.gz: expected the affine of its image",
        "case_00005/imaging.nii.gz: expected voxels of 0.01 to 50 mm, found "
        "5 x 0.8 x 0",
        "case_00006/imaging.nii.gz: expected voxels of 0.01 to 50 mm, found 5000 x",
        "case_00007/segmentation.nii.gz: expected a file, found none",
    ):
        assert text in message
    assert "case_00008" not in message


def test_damage_that_still_decompresses_is_found(root):
    path = root / "case_00000" / "segmentation.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(content)))
    packed[-6] ^= 255  # the checksum
    path.write_bytes(packed)
    with pytest.raises(InputError, match="case_00000/segmentation"):
        imitations.verify(kits19, root)


def test_a_volume_thinner_than_a_new_voxel_is_named(root):
    thin = AFFINE * [1, 1, 1, 1]
    thin[2, 0] = -0.5
    for name in ("imaging", "segmentation"):
        save(root / "case_00000" / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8), thin)
    with pytest.raises(InputError, match=r"of 3\.22 x 1\.62 x 1\.62 mm at least"):
        imitations.verify(kits19, root)


def test_label_maps_without_images_say_how_to_get_them(root):
    for path in root.glob("*/imaging.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match="found none") as caught:
        imitations.verify(kits19, root)
    assert "starter_code.get_imaging" in str(caught.value)
    assert "PHANTOM=1" in str(caught.value)
    assert "5 cases" in str(caught.value)


def test_missing_files_are_named_with_where_they_come_from(root):
    images = sorted(root.glob("*/imaging.nii.gz"))
    (root / "case_00002" / "segmentation.nii.gz").unlink()
    images[1].unlink()
    label, image = kits19.check(root)
    none = "expected a file, found none."
    assert label.startswith(f"case_00002/segmentation.nii.gz: {none} Copy it again")
    assert image == f"case_00001/imaging.nii.gz: {none} {kits19.RECORD.access}"
    for path in images:
        path.unlink(missing_ok=True)
    all_images, label_too = kits19.check(root)
    assert "beside the label maps of 5 cases, found none." in all_images
    assert label_too == label


def test_a_report_of_many_sizes_is_short():
    sizes = {(n, 20, 24): 1 for n in range(30, 40)}
    report = verify.Report("KiTS19", None, {"to be split": 11}, sizes=sizes)
    report.sizes[50, 20, 24] = 3
    line = next(line for line in str(report).splitlines() if "images" in line)
    assert line.startswith("  images  3 of 50 slices x 20 rows x 24 columns, 1 of 30")
    assert line.endswith("and 7 of other sizes")
