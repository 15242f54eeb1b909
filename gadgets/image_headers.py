"""Headers of reconstructed images, as Gadgetron fills them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types.recon_data import ReconBuffer

from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.buffers import Array
from gadgets.readouts import readout_extent
from gadgets.stream import ReconError
from gadgets.twins.field_of_view import adjustment_steps, centre_shift


def recon_steps(buffer: ReconBuffer) -> list[tuple[int, int, int]]:
    """How the chain's GenericReconFieldOfViewAdjustmentGadget will interpolate the images of a buffer."""
    sampling = buffer.sampling
    return adjustment_steps(buffer.data.shape, sampling.encoded_FOV, sampling.recon_FOV, sampling.recon_matrix)


def image_directions(line: Any, header: Any) -> list[list[float]]:
    """Patient directions in which the pixels of an inverse Fourier transform of a line's scan increase.

    Siemens' k-space has the other sign, s(k) = integral of rho(r) exp(+2 pi i k r) along the directions of its raw
    data: pixels of the inverse transform run against them (gadgetron#1003, mrpro#833; the air bubble of a bottle on a
    Skyra lies at the top by this, as it must).
    """
    system = header.acquisitionSystemInformation
    sign = -1.0 if system and "SIEMENS" in (system.systemVendor or "").upper() else 1.0
    return [
        [sign * value + 0.0 for value in direction] for direction in (line.read_dir, line.phase_dir, line.slice_dir)
    ]


def image_header(headers: Array, buffer: ReconBuffer, header: Any, space: int) -> ismrmrd.ImageHeader:
    """Image header of one image, from the acquisition nearest to the k-space centre, as Gadgetron fills it.

    Parameters
    ----------
    headers : object array [E1, E2] of acquisition headers; places never measured have number_of_samples 0
    buffer : the buffer they come from
    header : ismrmrd.xsd.ismrmrdHeader
    space : encoding space
    """
    measured = [place for place, head in np.ndenumerate(headers) if head.number_of_samples]
    centre = (headers.shape[0] // 2, headers.shape[1] // 2)
    nearest = min(measured, key=lambda place: math.dist(place, centre), default=(0, 0))
    line = headers[nearest]
    image = ismrmrd.ImageHeader()
    image.version = line.version
    image.data_type = ismrmrd.DATATYPE_CXFLOAT
    image.measurement_uid = line.measurement_uid
    image.matrix_size[:] = (buffer.data.shape[0], buffer.data.shape[1], buffer.data.shape[2])
    image.channels = 1
    for name in ("position", "patient_table_position", "physiology_time_stamp"):
        getattr(image, name)[:] = list(getattr(line, name))
    directions = image_directions(line, header)
    image.read_dir[:], image.phase_dir[:], image.slice_dir[:] = directions
    steps = recon_steps(buffer)
    sampling = buffer.sampling
    encoding = header.encoding[space]
    extent = _extent(buffer, encoding, steps)
    image.field_of_view[:] = extent
    if steps:
        # Where Gadgetron crops an even size to an odd one the centre of the field of view is one pixel further on
        # than the middle of the matrix, which `position` stands for.
        matrix = [
            buffer.data.shape[0],
            sampling.recon_matrix[1],
            steps[-1][2] if steps[-1][2] == 1 else sampling.recon_matrix[2],
        ]
        before = [encoding.encodedSpace.matrixSize.x, steps[-1][1], steps[-1][2]]
        position = np.array(image.position)
        for axis, direction in enumerate(directions):
            moved = centre_shift(before[axis], matrix[axis])
            position -= moved * extent[axis] / matrix[axis] * np.array(direction)
        image.position[:] = position.tolist()
    image.acquisition_time_stamp = line.acquisition_time_stamp
    image.image_type = ismrmrd.IMTYPE_MAGNITUDE
    index, size = 0, 1
    limits = header.encoding[space].encodingLimits
    for name in IMAGE_COUNTERS:
        value = int(getattr(line.idx, name))
        setattr(image, name, value)
        limit = getattr(limits, name)
        if name == "slice":
            size = buffer.data.shape[2]
        index += value * size
        size *= limit.maximum + 1 if limit else 1
    image.image_index = index % (2**16 - 1) + 1  # it has 16 bits
    image.user_int[:] = list(line.user_int)
    image.user_float[:] = list(line.user_float)
    return image


def _extent(buffer: ReconBuffer, encoding: Any, steps: list[tuple[int, int, int]]) -> list[float]:
    """Field of view in mm of the image, of whole pixels: that of the header would be up to a pixel off."""
    sampling = buffer.sampling
    extent = [float(value) for value in (sampling.recon_FOV if steps else sampling.encoded_FOV)]
    with contextlib.suppress(ReconError):  # readouts of another size than any of the header's
        extent[0] = readout_extent(encoding, buffer.data.shape[0])
    for axis in (1, 2):
        if steps and steps[-1][axis] > 1:
            extent[axis] = sampling.encoded_FOV[axis] * sampling.recon_matrix[axis] / steps[-1][axis]
    return extent
