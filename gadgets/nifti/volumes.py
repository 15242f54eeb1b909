"""NIfTI images of stacks of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gadgets.dicom.frames import Frame, Frames
from gadgets.dicom.stacks import Stack
from gadgets.nifti.timing import volume_interval

if TYPE_CHECKING:
    import nibabel

DESCRIPTION = "gadgetron-genrecon; research, not for diagnosis"
SCANNER, UNKNOWN = 1, 0  # NIFTI_XFORM_SCANNER_ANAT, NIFTI_XFORM_UNKNOWN
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti_image(stack: Stack, frames: Frames) -> nibabel.Nifti1Image:
    """A stack as a NIfTI image: one volume (x, y, z), several (x, y, z, volume).

    Rows run upwards, the other way than in DICOM, and slices along the normal: as dcm2niix arranges them. The affine
    is

        RAS = diag(-1, -1, 1) (first position + x dx row + (ny - 1 - y) dy column + z dz normal)

    in mm, in sform and qform; both have code 0, so that readers do not use it, where the raw data say nothing of
    position and orientation. Values are those of the DICOM files: uint16 with scl_slope and scl_inter where one rescale
    holds for all slices, else float32; complex images are complex64.

    Parameters
    ----------
    stack : slices and where they are
    frames : where their pixels are
    """
    import nibabel

    nx, ny, nz, count = stack.shape
    flip = np.eye(4)
    flip[1, 1], flip[1, 3] = -1, ny - 1
    affine = LPS_TO_RAS @ stack.affine() @ flip
    pixels, slope, intercept = _pixels(stack, frames)
    image = nibabel.Nifti1Image(pixels.reshape(nx, ny, nz, count) if count > 1 else pixels.reshape(nx, ny, nz), affine)
    image.header.set_slope_inter(slope, intercept)
    code = SCANNER if all(frame.placed for frame in stack.frames) else UNKNOWN
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    seconds = volume_interval(stack)
    image.header.set_xyzt_units("mm", "sec" if seconds else "unknown")
    if count > 1:
        image.header["pixdim"][4] = seconds or 1.0
    image.header.set_dim_info(freq=0, phase=1, slice=2)
    image.header["descrip"] = DESCRIPTION.encode()
    return image


def _pixels(stack: Stack, frames: Frames) -> tuple[NDArray[Any], float, float]:
    """Array (x, y, z, volume) in Fortran order, slope and intercept."""
    nx, ny, nz, count = stack.shape
    rescales = {_rescale(frame) for frame in stack.frames}
    one = len(rescales) == 1
    kind = np.dtype(stack.first.kind) if one else np.dtype(np.float32)
    array = np.zeros((nx, ny, nz, count), kind.newbyteorder("="), order="F")
    for t, volume in enumerate(stack.volumes):
        for z, frame in enumerate(volume):
            pixels: NDArray[Any] = frames.pixels(frame)
            if not one:
                slope, intercept = _rescale(frame)
                pixels = pixels * slope + intercept
            array[:, :, z, t] = pixels[::-1].T
    return array, *(rescales.pop() if one else (1.0, 0.0))


def _rescale(frame: Frame) -> tuple[float, float]:
    if np.dtype(frame.kind).kind == "c":  # values already
        return 1.0, 0.0
    dataset = frame.dataset
    return float(dataset.get("RescaleSlope", 1.0)), float(dataset.get("RescaleIntercept", 0.0))
