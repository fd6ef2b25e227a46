"""What a NIfTI header says of where its voxels lie, and whether it contradicts itself.

A header may say it three times: sform, qform and the voxel sizes in pixdim. Programs
differ in which they believe, so what is said must agree before anything is resampled.
"""

from collections.abc import Sequence

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from data_io.prepare.native_grid import by_axis

# Programs round: to 0.01 mm, but of small voxels to a twentieth of one, it is the same.
_SAME_MM, _SAME_SHARE = 0.01, 0.05
_ALONG = np.cos(np.radians(5))  # of two axes that run alike
_SQUARE = np.sin(np.radians(5))  # of two axes at right angles
_KEEP = (
    "Find out which is right, for instance in a viewer beside the label map, and write "
    "the others from it into the header. Resample nothing: that would move labels"
)


def stated(header: nibabel.Nifti1Header) -> dict[str, np.ndarray]:
    """The affines that a header says are valid, voxel indices to mm, by name.

    Raises:
        ValueError: the qform is no rotation.
    """
    forms, header = {}, header.copy()
    # 0 counts as 1 by the standard, and many programs write it; and they round.
    if abs(header["pixdim"][0]) != 1:
        header["pixdim"][0] = 1
    if header["sform_code"] > 0:
        forms["sform"] = np.asarray(header.get_sform())
    if header["qform_code"] > 0:
        try:
            forms["qform"] = np.asarray(header.get_qform())
        except HeaderDataError as error:
            raise ValueError(str(error)) from error
        if not np.isfinite(forms["qform"]).all():
            raise ValueError("not finite")
    return forms


def fault(header: nibabel.Nifti1Header) -> str:
    """Say what is wrong with what a header says; "" where nothing is.

    Voxels of size 0 or NaN by the sform are left to those who judge sizes.

    Args:
        header: as it is in the file; nibabel mends some of it on loading.
    """
    pixdim = header["pixdim"][1:4].astype(float)
    if not (np.isfinite(pixdim) & (pixdim > 0)).all():
        return (
            "expected voxel sizes above 0, found pixdim "
            f"{by_axis(pixdim)}. Correct it in the header."
        )
    try:
        affines = stated(header)
    except ValueError as error:
        return no_rotation(error)
    if not all(np.isfinite(a).all() and voxel_sizes(a).all() for a in affines.values()):
        return ""
    return _contradiction(affines, pixdim) or _shear(affines)


def no_rotation(error: Exception) -> str:
    """Says that a qform is no rotation."""
    return (
        f"expected a qform that is a rotation, found another ({error}). Correct "
        "it in the header, or set its code to 0 where the sform is right."
    )


def _contradiction(affines: dict[str, np.ndarray], pixdim: np.ndarray) -> str:
    """Voxel sizes or directions of which two are stated."""
    sizes = [voxel_sizes(affine) for affine in affines.values()]
    axes = [a[:3, :3] / size for a, size in zip(affines.values(), sizes, strict=True)]
    alike = not axes or ((axes[0] * axes[-1]).sum(axis=0) >= _ALONG).all()
    if alike and all(same(size, pixdim, pixdim) for size in sizes):
        return ""
    text = [f"{name} {shown(affine)}" for name, affine in affines.items()]
    return (
        f"expected one geometry, found {'; '.join(text)}; pixdim {by_axis(pixdim)} mm. "
        f"{_KEEP}."
    )


def _shear(affines: dict[str, np.ndarray]) -> str:
    """Axes that are not at right angles, as of a tilted scanner."""
    for name, affine in affines.items():
        axes = affine[:3, :3] / voxel_sizes(affine)
        off = np.abs(np.triu(axes.T @ axes, 1)).max()
        if off > _SQUARE:
            angle = 90 - np.degrees(np.arcsin(min(off, 1)))
            return (
                f"expected axes at right angles, found two at {angle:.0f} degrees "
                f"({name} {shown(affine)}). Resample image and label map together to a "
                "grid of right angles."
            )
    return ""


def doubt(header: nibabel.Nifti1Header) -> np.ndarray | None:
    """The qform where it differs from the sform in place or by a few degrees alone.

    That changes no voxel size and no direction; None where the two are the same.
    """
    affines = stated(header)
    if len(affines) < 2:
        return None
    sform, qform = affines["sform"], affines["qform"]
    return None if same(sform, qform, voxel_sizes(sform)) else qform


def same(
    one: np.ndarray, other: np.ndarray, sizes_mm: Sequence[float] | np.ndarray
) -> bool:
    """Whether affines or voxel sizes are the same but for rounding.

    Args:
        one: values in mm.
        other: as many.
        sizes_mm: voxel size by axis; rounding is 0.01 mm, or less of small voxels.
    """
    rounding = min(_SAME_MM, _SAME_SHARE * float(np.min(sizes_mm)))
    return np.allclose(one, other, rtol=0, atol=rounding)


def shown(affine: np.ndarray) -> str:
    """An affine for people: voxel size, directions of the axes, the first voxel."""
    known = np.isfinite(affine).all()
    codes = "".join(code or "?" for code in aff2axcodes(affine)) if known else "???"
    first = ", ".join(f"{at:g}" for at in affine[:3, 3])
    return f"{by_axis(voxel_sizes(affine))} mm, {codes}, from ({first})"
