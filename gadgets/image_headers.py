"""Headers of reconstructed images, as Gadgetron fills them."""

from __future__ import annotations

import math
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types.recon_data import ReconBuffer

from gadgets.buffers import Array
from gadgets.twins.field_of_view import adjustment_steps, centre_shift


def recon_steps(buffer: ReconBuffer) -> list[tuple[int, int, int]]:
    """How the chain's GenericReconFieldOfViewAdjustmentGadget will interpolate the images of a buffer."""
    sampling = buffer.sampling
    return adjustment_steps(buffer.data.shape, sampling.encoded_FOV, sampling.recon_FOV, sampling.recon_matrix)


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
    for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position", "physiology_time_stamp"):
        getattr(image, name)[:] = list(getattr(line, name))
    steps = recon_steps(buffer)
    sampling = buffer.sampling
    image.field_of_view[:] = list(sampling.recon_FOV if steps else sampling.encoded_FOV)
    if steps:
        # Where Gadgetron crops an even size to an odd one the centre of the field of view is one pixel further on
        # than the middle of the matrix, which `position` stands for.
        matrix = [
            sampling.recon_matrix[0],
            sampling.recon_matrix[1],
            sampling.recon_matrix[2] if steps[-1][2] > 1 else 1,
        ]
        before = [header.encoding[space].encodedSpace.matrixSize.x, steps[-1][1], steps[-1][2]]
        position = np.array(image.position)
        for axis, direction in enumerate((line.read_dir, line.phase_dir, line.slice_dir)):
            moved = centre_shift(before[axis], buffer.data.shape[0] if axis == 0 else matrix[axis])
            position -= moved * sampling.recon_FOV[axis] / matrix[axis] * np.array(direction)
        image.position[:] = position.tolist()
    image.acquisition_time_stamp = line.acquisition_time_stamp
    image.image_type = ismrmrd.IMTYPE_MAGNITUDE
    index, size = 0, 1
    limits = header.encoding[space].encodingLimits
    for name in ("slice", "contrast", "phase", "set", "repetition", "average"):
        value = int(getattr(line.idx, name))
        setattr(image, name, value)
        limit = getattr(limits, name)
        if name == "slice":
            size = buffer.data.shape[2]
        index += value * size
        size *= limit.maximum + 1 if limit else 1
    image.image_index = (index + 1) % 65536
    image.user_int[:] = list(line.user_int)
    image.user_float[:] = list(line.user_float)
    return image
