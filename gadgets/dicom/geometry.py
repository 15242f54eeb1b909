"""Where the pixels of an image are in the patient: position, orientation and spacing."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.dicom.values import Warn, positive
from gadgets.images import encoding_of_image
from gadgets.stream import ReconError

log = logging.getLogger("genrecon")


@dataclass(frozen=True)
class ImageGeometry:
    """Where the pixels of an image are, in DICOM patient coordinates (LPS), mm.

    Pixel (x, y, z) has its centre at

        centre + (x - nx//2) dx row + (y - ny//2) dy column + (z - nz//2) dz step

    because index n//2 is the centre of a centred FFT of any size, and ISMRMRD's `position` is the centre of the encoded
    volume; for even n this is Gadgetron's `position - fov/2 * direction` for the first pixel. ImagePositionPatient
    (PS3.3 C.7.6.2) is `pixel(0, 0, z)`, ImageOrientationPatient `row` and `column`.

    Attributes
    ----------
    centre : position of pixel (nx//2, ny//2, nz//2), mm
    row, column, step : unit vectors along increasing x, y and z, perpendicular to each other
    spacing : distance between pixel centres along x, y and z, mm
    matrix : pixels (nx, ny, nz)
    assumed : whether the raw data lack an orientation or position, and these are made up
    """

    centre: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    step: NDArray[np.float64]
    spacing: tuple[float, float, float]
    matrix: tuple[int, int, int]
    assumed: bool

    def pixel(self, x: float, y: float, z: float) -> NDArray[np.float64]:
        """Position of a pixel centre in mm."""
        axes = (self.row, self.column, self.step)
        offsets = [
            (index - n // 2) * spacing * axis
            for index, n, spacing, axis in zip((x, y, z), self.matrix, self.spacing, axes, strict=True)
        ]
        return np.asarray(self.centre + np.sum(offsets, axis=0), dtype=np.float64)


def image_geometry(image: ismrmrd.Image, header: ismrmrdHeader, warn: Warn = log.warning) -> ImageGeometry:
    """Geometry of an ISMRMRD image: x increases along read_dir, y along phase_dir, z along slice_dir.

    Directions that are missing (a phantom's zeros) or not finite become the identity axes, with a warning and
    `assumed` set; directions not quite perpendicular are made so. A field of view of 0 is taken from the
    header.

    Raises
    ------
    ReconError
        If neither the image nor the header has a field of view.
    """
    nz, ny, nx = image.data.shape[1:]
    encoding = encoding_of_image(image, header)
    recon = encoding.reconSpace.fieldOfView_mm if encoding else None
    declared = (recon.x, recon.y, recon.z) if recon else (0.0, 0.0, 0.0)
    fov = []
    for axis, own, fallback in zip("xyz", image.field_of_view, declared, strict=True):
        size = positive(own) or positive(fallback)
        if size is None:
            raise ReconError(
                f"DicomOutput: neither the image nor the ISMRMRD header has a field of view along {axis}; "
                "set encoding/reconSpace/fieldOfView_mm in the header"
            )
        fov.append(size)

    row, column, step, centre = (
        np.array(values[:], dtype=np.float64)
        for values in (image.read_dir, image.phase_dir, image.slice_dir, image.position)
    )
    norms = [float(np.linalg.norm(axis)) for axis in (row, column)]
    assumed = not all(math.isfinite(norm) and norm > 0.5 for norm in norms)
    if not assumed:
        row, column = row / norms[0], column / norms[1]
        skew = float(row @ column)
        assumed = abs(skew) > 0.9
    if assumed:
        warn("the image has no usable read and phase directions; its orientation is assumed to be axial")
        row, column, step = np.eye(3)
    else:
        if abs(skew) > 1e-3:
            warn(f"read_dir and phase_dir are not perpendicular (cosine {skew:.3g}); phase_dir is turned")
        column = column - skew * row
        column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    along = float(step @ normal)
    if not math.isfinite(along):
        along = 0.0
    if np.any(step) and abs(along) < 0.99:
        warn("slice_dir is not perpendicular to the image plane; the plane's normal is used")
    step = normal if along >= 0 else -normal
    if not np.all(np.isfinite(centre)):
        warn("the image has no usable position; it is put at the origin")
        centre, assumed = np.zeros(3), True

    def tidy(axis: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.where(np.abs(axis) < 1e-6, 0.0, axis) + 0.0, dtype=np.float64)

    return ImageGeometry(
        centre=centre,
        row=tidy(row),
        column=tidy(column),
        step=tidy(step),
        spacing=(fov[0] / nx, fov[1] / ny, fov[2] / nz),
        matrix=(nx, ny, nz),
        assumed=assumed,
    )
