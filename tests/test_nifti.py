"""Volumes keep their axes, values and grid; what is broken is one clear error."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_io.datasets import folder
from data_io.errors import InputError
from data_io.files import nifti
from data_io.verification import volumes
from data_io.verification.report import Finding
from data_io.verification.volumes import order

SHAPE = (5, 7, 19)
# As in KiTS19: axis 0 is the slice axis, and all three run against the scanner's.
AFFINE = np.array([[0, 0, -0.75, 3], [0, -0.75, 0, 4], [-5, 0, 0, 5], [0, 0, 0, 1.0]])


def write(path, array, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(np.int16)


def test_whole_numbers_stay_as_they_are_stored(tmp_path, volume):
    for name in ("a.nii", "a.nii.gz"):
        voxels = nifti.read(write(tmp_path / name, volume))
        assert voxels.dtype == np.int16
        np.testing.assert_array_equal(voxels, volume)


def test_scaled_and_64_bit_values_become_float32(tmp_path, volume):
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header.set_slope_inter(0.5, -1000)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    stored = nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()
    voxels = nifti.read(tmp_path / "scaled.nii.gz")
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, stored.astype(np.float32))
    voxels = nifti.read(write(tmp_path / "b.nii.gz", volume.astype(np.float64)))
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, volume)


def test_axes_of_length_one_behind_the_third_are_dropped(tmp_path, volume):
    path = write(tmp_path / "a.nii.gz", volume[..., np.newaxis])
    np.testing.assert_array_equal(nifti.read(path), volume)
    assert nifti.geometry(path).shape == SHAPE


def test_geometry_needs_no_voxels(tmp_path, volume):
    path = write(tmp_path / "a.nii", volume)
    path.write_bytes(path.read_bytes()[:400])
    geometry = nifti.geometry(path)
    assert geometry.shape == SHAPE
    np.testing.assert_array_equal(geometry.affine, AFFINE)
    assert geometry.spacing_mm == (5, 0.75, 0.75)


def test_spacing_goes_with_the_axes_of_the_array(tmp_path, volume):
    affine = np.diag([1.5, -2.5, 3.5, 1])[[1, 2, 0, 3]]
    path = write(tmp_path / "a.nii.gz", volume, affine)
    np.testing.assert_allclose(nifti.geometry(path).spacing_mm, (1.5, 2.5, 3.5))


def test_written_file_has_the_grid_of_the_image(tmp_path, volume):
    like = nifti.geometry(write(tmp_path / "a.nii.gz", volume))
    label = (volume > 0).astype(np.uint8)
    chance = np.random.default_rng(1).random((*SHAPE, 3)).astype(np.float32)
    for name, array in (("label.nii.gz", label), ("chance.nii.gz", chance)):
        nifti.write_like(tmp_path / name, array, like)
        written = nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(written.affine, AFFINE)
        assert written.get_data_dtype() == array.dtype
        assert written.header["sform_code"] == like.header["sform_code"]
        np.testing.assert_array_equal(np.asarray(written.dataobj), array)
    with pytest.raises(ValueError, match=r"expected shape \(5, 7, 19\)"):
        nifti.write_like(tmp_path / "b.nii", label[1:], like)


def test_labels_are_class_numbers(tmp_path):
    label = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3
    for dtype in (np.uint8, np.int16, np.float64):
        read = nifti.read_label(write(tmp_path / "a.nii.gz", label.astype(dtype)))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, label)
    for wrong in (label + 0.5, label - 1.0, np.where(label, label, np.nan)):
        write(tmp_path / "a.nii.gz", wrong)
        with pytest.raises(InputError, match="expected class numbers"):
            nifti.read_label(tmp_path / "a.nii.gz")


def test_broken_files_are_named(tmp_path, volume):
    path = write(tmp_path / "a.nii.gz", volume)
    whole = path.read_bytes()
    for broken in (whole[:200], whole[: len(whole) // 2], b"", b"not a volume"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.nii\.gz: expected a whole NIfTI"):
            nifti.read(path)
    with pytest.raises(InputError, match="expected a file, found none"):
        nifti.read(tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match="three axes"):
        nifti.read(write(tmp_path / "flat.nii", volume[0]))
    with pytest.raises(InputError, match="three axes"):
        nifti.geometry(write(tmp_path / "4d.nii", np.stack([volume] * 2, -1)))


def test_damage_after_the_last_voxel_is_found(tmp_path, volume):
    path = write(tmp_path / "a.nii.gz", volume)
    nifti.check_whole(path)
    path.write_bytes(path.read_bytes()[:-5] + b"12345")
    with pytest.raises(InputError, match="cut short or damaged"):
        nifti.check_whole(path)


def test_file_of_another_format_is_refused(tmp_path, volume):
    path = tmp_path / "a.mgz"
    nibabel.save(nibabel.MGHImage(volume.astype(np.float32), AFFINE), path)
    with pytest.raises(InputError, match="expected a NIfTI file, found MGHImage"):
        nifti.read(path)


def test_slice_equals_that_of_the_volume(tmp_path, volume):
    path = write(tmp_path / "a.nii.gz", volume)
    for axis, size in enumerate(SHAPE):
        for index in (0, size - 1):
            plane = nifti.read_slice(path, index, axis)
            assert plane.dtype == volume.dtype
            np.testing.assert_array_equal(plane, volume.take(index, axis))


def unpacked(path):
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def test_blocks_in_the_order_of_the_file_are_the_array(tmp_path, volume):
    like = nifti.geometry(write(tmp_path / "a.nii.gz", volume))
    chances = np.random.default_rng(1).random((*SHAPE, 2), np.float32)
    for name in ("whole.nii.gz", "whole.nii"):
        nifti.write_like(tmp_path / name, chances, like)
        blocks = (
            chances[:, :, start : start + 8, channel]
            for channel in range(2)
            for start in range(0, SHAPE[2], 8)
        )
        path = tmp_path / name.replace("whole", "blocks")
        nifti.write_blocks(path, blocks, 2, np.float32, like)
        # To the bit, header and all; a packed file also holds its own name.
        assert unpacked(path) == unpacked(tmp_path / name)
    with pytest.raises(ValueError, match="665 voxels missing"):
        nifti.write_blocks(tmp_path / "b.nii", [volume], 2, np.int16, like)


def turned(degrees: float) -> np.ndarray:
    """Turned about the axis from foot to head, voxels of 2 x 2 x 5 mm."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[2 * cos, -2 * sin, 0, 0], [2 * sin, 2 * cos, 0, 0], [0, 0, 5, 0],
                     [0, 0, 0, 1]])  # fmt: skip


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (AFFINE, (2, 1, 0)),  # as KiTS19: slices first
        (np.diag([-1.0, 1, 3, 1]), (0, 1, 2)),  # flipped, not reordered
        (np.diag([1.0, 2, 3, 1])[[2, 0, 1, 3]], (1, 2, 0)),
        (turned(30), (0, 1, 2)),
        (turned(60), (1, 0, 2)),
        (turned(44), (0, 1, 2)),  # the nearest
        (turned(46), (1, 0, 2)),
    ],
)
def test_the_order_of_axes(tmp_path, volume, affine, expected):
    path = write(tmp_path / "a.nii.gz", volume, affine)
    assert order({"directions": nifti.geometry(path).directions}) == expected


def test_header_without_orientation_gives_no_axes(tmp_path, volume):
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert nifti.geometry(tmp_path / "a.nii.gz").directions is None


def test_colours_and_complex_numbers_are_refused(tmp_path, volume):
    colours = np.zeros(SHAPE, [(name, np.uint8) for name in "RGB"])
    for array, kind in [
        (colours, "found colours"),
        (volume.astype(np.complex64), "found type complex64"),
    ]:
        path = write(tmp_path / "a.nii.gz", array)
        for read in (nifti.read, nifti.read_label, nifti.geometry):
            with pytest.raises(InputError, match=rf"a\.nii\.gz: .* {kind}"):
                read(path)
        with pytest.raises(InputError, match=kind):
            nifti.read_slice(path, 0)


def test_a_header_of_more_voxels_than_memory_is_an_error(tmp_path):
    path = tmp_path / "v.nii"
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), "float32"), np.eye(4))
    nibabel.save(image, path)
    image.header["dim"][1:4] = 32767
    path.write_bytes(image.header.binaryblock + path.read_bytes()[348:])
    with pytest.raises(InputError, match=r"v\.nii: expected"):
        nifti.read(path)


def turned_by(path: Path, off: float) -> Path:
    """A volume whose quaternion is longer than 1 by half of `off`."""
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    image.set_qform(np.eye(4), code=1)
    image.header["vox_offset"] = 352
    for name in "bcd":
        image.header[f"quatern_{name}"] = np.sqrt((1 + off) / 3)
    voxels = np.asarray(image.dataobj).tobytes("F")
    path.write_bytes(image.header.binaryblock + bytes(4) + voxels)
    return path


def test_a_rounded_quaternion_is_a_rotation(tmp_path):
    for off in (3e-7, 1e-5):
        path = turned_by(tmp_path / "a.nii", off)
        assert nifti.geometry(path).spacing_mm == pytest.approx((1, 1, 1))
        assert nifti.read(path).max() == 23
    with pytest.raises(InputError, match="a qform that is a rotation") as caught:
        nifti.read(turned_by(tmp_path / "a.nii", 1e-3))
    assert "damaged" not in str(caught.value)


def stored(path: Path, **fields: object) -> Path:
    """A label map of 0, 1 and 2 with these fields in its header."""
    label = (np.arange(24) % 3).astype(np.int16)
    image = nibabel.Nifti1Image(label.reshape(2, 3, 4), np.eye(4))
    image.header["vox_offset"] = 352
    for name, value in fields.items():
        image.header[name] = value
    path.write_bytes(image.header.binaryblock + bytes(4) + label.tobytes("C"))
    return path


@pytest.mark.parametrize("slope", [1.00001526, 0.9996, 1])
def test_labels_that_a_scale_moved_a_little_are_class_numbers(tmp_path, slope):
    path = stored(tmp_path / "a.nii", scl_slope=slope, scl_inter=0)
    assert set(nifti.read_label(path).flat) == {0, 1, 2}
    assert [v for v, _ in volumes.facts(path, "observer1")["values"]] == [0, 1, 2]


def test_the_value_that_is_no_class_number_is_named(tmp_path):
    path = stored(tmp_path / "a.nii", scl_slope=1.25, scl_inter=0)
    message = r"found (1\.25|2\.5) among values from 0 to 2\.5"
    with pytest.raises(InputError, match=message):
        nifti.read_label(path)
    known = folder.own_images.look(path, "observer1")
    record = folder.own_images.RECORD
    (fault,) = volumes.judge(record, "observer1", Finding, known, {})
    assert fault.message.startswith("expected the values 0 to 255, found 0, 1.25, 2.5")


@pytest.mark.parametrize(("slope", "inter"), [(np.inf, 0), (-np.inf, 0), (1, np.nan)])
def test_a_scale_that_is_not_finite_is_an_error(tmp_path, slope, inter):
    path = stored(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter)
    with pytest.raises(InputError) as caught:
        nifti.geometry(path)
    assert "expected a finite scale" in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_nibabel_prints_nothing(tmp_path, capfd):
    path = stored(tmp_path / "a.nii", pixdim=[5, 1, 1, 1, 1, 1, 1, 1], bitpix=8)
    nifti.read(path)
    assert capfd.readouterr() == ("", "")


def test_absurd_sizes_are_refused_at_once(tmp_path):
    path = stored(tmp_path / "a.nii", dim=[3, 10000, 10000, 10000, 1, 1, 1, 1])
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    sparse = stored(tmp_path / "b.nii", dim=[3, 3000, 3000, 2800, 1, 1, 1, 1])
    with sparse.open("r+b") as file:
        file.truncate(50_000_000_000 + 1000)
    for each in (path, tmp_path / "a.nii.gz", sparse):
        for read in (nifti.geometry, nifti.read_label, folder.own_images.look):
            with pytest.raises(InputError, match="expected a volume of at most"):
                read(each, "image") if read is folder.own_images.look else read(each)


def test_written_file_has_no_patient_data(tmp_path, volume):
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header.set_intent("z score", (), name="z")
    image.header["cal_min"], image.header["cal_max"] = 40, 400
    image.header["descrip"], image.header["aux_file"] = b"Ann Example", b"ann.txt"
    image.header["db_name"] = b"Ann"
    note = nibabel.nifti1.Nifti1Extension("comment", b"Ann Example, born 1970")
    image.header.extensions.append(note)
    nibabel.save(image, tmp_path / "a.nii.gz")
    like = nifti.geometry(tmp_path / "a.nii.gz")
    nifti.write_like(tmp_path / "b.nii.gz", (volume > 0).astype(np.uint8), like)
    slab = [np.zeros(SHAPE, np.float32)]
    nifti.write_blocks(tmp_path / "c.nii.gz", slab, 1, np.float32, like)
    for name in "bc":
        whole = gzip.decompress((tmp_path / f"{name}.nii.gz").read_bytes())
        assert b"Ann" not in whole
        header = nibabel.load(tmp_path / f"{name}.nii.gz").header
        assert header.get_data_shape() == SHAPE
        assert header.get_intent() == ("none", (), "")
        assert header["cal_min"] == header["cal_max"] == 0
        assert not header.extensions
    assert like.header["cal_max"] == 400  # the image's own header is as it was
