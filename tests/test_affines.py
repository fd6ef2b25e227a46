"""A header that says in two ways where its voxels lie is not believed in silence."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tiny_volumes

from data_io.datasets import folder
from data_io.datasets.kits19 import kits19
from data_io.errors import InputError
from data_io.files import nifti
from data_io.own_images import describe
from data_io.verification import verify

SHAPE = (14, 30, 22)
SFORM = np.diag([-1.4, -1.4, 9.0, 1.0])
SFORM[:3, 3] = 40, -20, 7


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    """About the axis from foot to head."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    return turn @ affine


def moved(affine: np.ndarray, *by_mm: float) -> np.ndarray:
    result = affine.copy()
    result[:3, 3] += by_mm
    return result


def resized(affine: np.ndarray, *by: float) -> np.ndarray:
    return affine @ np.diag([*by, 1.0])


def write(path: Path, seed: int = 0, sform=SFORM, qform=None, label=False, **header):
    """A volume with a box; codes, pixdim and unit as they are given."""
    random = np.random.default_rng(seed)
    box = np.zeros(SHAPE, np.uint8)
    box[3:9, 4:20, 5:15] = 1
    image = (box * 200 + random.normal(0, 20, SHAPE)).astype(np.int16)
    volume = nibabel.Nifti1Image(box if label else image, None)
    volume.set_qform(
        sform if qform is None else qform, code=header.get("qform_code", 1)
    )
    stored = volume.header.copy()
    stored.set_sform(sform, code=header.get("sform_code", 1))
    stored["xyzt_units"] = header.get("unit", 2)
    if "pixdim" in header:
        stored["pixdim"][1:4] = header["pixdim"]
    stored["pixdim"][0] = header.get("qfac", stored["pixdim"][0])
    stored["quatern_d"] += header.get("quatern_d_off", 0)
    # The header's bytes as they are: nibabel would mend them.
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.asarray(volume.dataobj).tobytes("F")
    stored["vox_offset"] = 352
    path.write_bytes(stored.binaryblock + bytes(4) + voxels)


def sets(place: Path, **header) -> tuple[Path, Path]:
    """Six sound pairs, of which the second is as is said."""
    for seed in range(6):
        options = header if seed == 1 else {}
        write(place / "ct" / f"v{seed}.nii", seed, **options)
        write(place / "seg" / f"v{seed}.nii", seed, label=True, **options)
    return place / "ct", place / "seg"


CONTRADICTIONS = {
    "three sizes by the qform": (
        {"sform": np.diag([-1.0, -1, 1, 1]), "qform": np.diag([-1.4, -1.4, 9, 1])},
        r"sform 1 x 1 x 1 mm, LPS, .*qform 1\.4 x 1\.4 x 9 mm, LPS.*pixdim 1\.4 x 1\.4",
    ),
    "pixdim alone": ({"pixdim": (1.4, 1.4, 5)}, r"sform .* x 9 mm.*pixdim .* x 5"),
    "pixdim without a qform": (
        {"pixdim": (1, 1, 1), "qform_code": 0},
        r"sform 1\.4 x 1\.4 x 9 mm, .*; pixdim 1 x 1 x 1 mm",
    ),
    "mirrored": ({"qform": resized(SFORM, -1, 1, 1)}, r"sform .*LPS.*qform .*RPS"),
    "turned by 20 degrees": ({"qform": turned(SFORM, 20)}, "expected one geometry"),
    "a qform that is no rotation": (
        {"quatern_d_off": 0.5},
        "expected a qform that is a rotation",
    ),
    "pixdim 0": ({"pixdim": (1.4, 0, 9)}, r"found pixdim 1\.4 x 0 x 9\. Correct"),
    "pixdim below 0": ({"pixdim": (1.4, -1.4, 9)}, r"found pixdim 1\.4 x -1\.4"),
    "pixdim NaN": ({"pixdim": (1.4, np.nan, 9)}, "found pixdim 1.4 x nan"),
    "axes that are not square": (
        {
            "sform": SFORM @ np.array([[1, 0.5, 0, 0], [0, 0.8660254, 0, 0],
                                       [0, 0, 1, 0], [0, 0, 0, 1]]),
            "qform": SFORM,
            "qform_code": 0,
        },
        "found two at 60 degrees",
    ),
    "micrometres": ({"unit": 3}, "expected voxel sizes in mm, found them in micron"),
    "metres": ({"unit": 1}, "expected voxel sizes in mm, found them in meter"),
    "no unit that there is": ({"unit": 5}, "found them in code 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictory_header_is_refused(tmp_path, name):
    header, expected = CONTRADICTIONS[name]
    with pytest.raises(InputError, match=expected) as caught:
        describe.describe(*sets(tmp_path, **header), tmp_path / "work")
    message = str(caught.value)
    assert (
        "2 problems" in message
        and "ct/v1.nii: " in message
        and "seg/v1.nii: " in message
    )
    assert "Resample it" not in message


HARMLESS = {
    "as nibabel writes it": {},
    "size off by 0.004 mm": {"qform": resized(SFORM, 1.404 / 1.4, 1, 9.004 / 9)},
    "place off by 0.004 mm": {"qform": moved(SFORM, 0.004, -0.004, 0.004)},
    "no unit": {"unit": 0},
    "a qfac of 0": {"qfac": 0},
    "a quaternion that is rounded": {"quatern_d_off": 1e-6},
    "another place": {"qform": moved(SFORM, 0, 0, 30)},
    "turned by 2 degrees": {"qform": turned(SFORM, 2)},
    "no sform": {"sform_code": 0},
    "no qform": {"qform_code": 0},
    "neither": {"sform_code": 0, "qform_code": 0},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_headers_that_differ_by_rounding_are_read(tmp_path, name):
    description = describe.describe(
        *sets(tmp_path, **HARMLESS[name]), tmp_path / "work"
    )
    spacing = folder.own_images.geometry(description.root, "v1").spacing_mm
    assert spacing == pytest.approx((1.4, 1.4, 9.0), rel=1e-5)
    doubtful = name in ("another place", "turned by 2 degrees")
    assert ("1 of 6 volumes have a qform" in str(description)) == doubtful


def test_a_label_map_may_have_the_qform_of_its_image(tmp_path):
    """Programs that go by the qform write it as the label map's sform."""
    qform = moved(SFORM, 0, 0, 30)
    images, labels = sets(tmp_path, qform=qform)
    write(labels / "v1.nii", label=True, sform=qform)
    assert describe.describe(images, labels, tmp_path / "work")


@pytest.mark.parametrize(("off_mm", "same"), [(0.004, True), (1.4, False)])
def test_label_maps_lie_on_their_images(tmp_path, off_mm, same):
    images, labels = sets(tmp_path)
    write(labels / "v1.nii", label=True, sform=moved(SFORM, off_mm, 0, 0))
    if same:
        assert describe.describe(images, labels, tmp_path / "work")
        return
    with pytest.raises(InputError) as caught:
        describe.describe(images, labels, tmp_path / "work")
    message = str(caught.value)
    assert "from (40, -20, 7), found 1.4 x 1.4 x 9 mm, LPS, from (41.4" in message
    assert "copy the image's header: to resample it would move it" in message


def test_built_in_data_sets_get_the_same_header_checks(tmp_path):
    root = tiny_volumes.write(tmp_path / "kits")
    assert not verify.audit(kits19, root).problems
    path = root / "case_00001" / kits19.IMAGE
    volume = nibabel.load(path)
    volume.set_qform(volume.affine @ np.diag([2.0, 1, 1, 1]), code=1)
    volume.header["pixdim"][1:4] = 8, 1.5, 2
    nibabel.save(volume, path)
    (problem,) = verify.audit(kits19, root).problems
    assert "case_00001/imaging.nii.gz: expected one geometry" in problem.message
    with pytest.raises(InputError, match=r"sform 4 x 1\.5 x 2 mm"):
        nifti.geometry(path)
