"""Reconstruction: k-space and coil maps in, images out. The slot every prior and method goes into."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ismrmrd
import numpy as np
import torch
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer
from torch import Tensor

from gadgets.acquisition import calibration_mode
from gadgets.buffers import Array, image_from_problems, is_3d, kspace_problems, maps_problems, sampled
from gadgets.finish import SCALE_RATIO, adjustment_gain, adjustment_steps, centre_shift
from gadgets.stream import Gadget, ReconError, parameter
from priors.posterior import cg_sense, image_scale, l1_wavelet

log = logging.getLogger("genrecon")

FULL_SCALE = 32000.0  # pixel values above this are kept out of, they would be cut on their way to 16 bit
PROBLEM_MEGABYTES = 192.0  # working memory of the slices or readout positions solved together


# Each takes (k-space of signal level 1, maps, mask, regularisation, iterations), returns images (batch, set, y, x).
METHODS: dict[str, Callable[..., Tensor]] = {"cg_sense": cg_sense, "l1_wavelet": l1_wavelet}


def combine_sets(images: Tensor, maps: Tensor) -> Tensor:
    """One image of all map sets: root-sum-of-squares of the coil images maps x images, phase of the first set.

    Parameters
    ----------
    images : complex64 (batch, set, y, x)
    maps : complex64 (batch, set, coil, y, x)

    Returns
    -------
    complex64 (batch, y, x)
    """
    coils = (maps * images[:, :, None]).sum(1)
    magnitude = torch.linalg.vector_norm(coils, dim=1)
    return torch.polar(magnitude, images[:, 0].angle())


def reconstruct(kspace: Tensor, mask: Tensor, maps: Tensor, solve: Callable[..., Tensor]) -> Tensor:
    """Reconstruct the 2D problems of one image or volume, as many at a time as fit in memory.

    The data are normalised once for all of them, so that the regularisation means the same everywhere.

    Parameters
    ----------
    kspace : complex64 (batch, coil, y, x)
    mask : bool (batch, y, x), or (1, y, x) for all
    maps : complex64 (batch, set, coil, y, x)
    solve : (k-space, maps, mask (batch, 1, y, x)) to images (batch, set, y, x)

    Returns
    -------
    complex64 (batch, y, x); zero where a problem has no samples.

    Raises
    ------
    ReconError
        When the method diverged.
    """
    level = image_scale(kspace, mask[:, None]).max()
    kspace = kspace / level
    images = torch.zeros(kspace.shape[0], *kspace.shape[-2:], dtype=kspace.dtype)
    mask = mask.expand(len(kspace), *kspace.shape[-2:])
    wanted = torch.nonzero(kspace.abs().amax(dim=(1, 2, 3)) > 0).flatten()
    megabytes = 8 * 6 * maps[0].numel() / 2**20
    for chunk in wanted.split(max(1, int(PROBLEM_MEGABYTES / megabytes))) if len(wanted) else ():
        part = maps[chunk]
        images[chunk] = combine_sets(solve(kspace[chunk], part, mask[chunk][:, None]), part)
    if not torch.isfinite(torch.view_as_real(images)).all():
        raise ReconError("reconstruction: it diverged to NaN or infinity; raise `regularisation`")
    return level * images


class GenerativeRecon(Gadget):
    """Turns k-space with coil maps into image arrays, by the chosen method."""

    @dataclass(frozen=True)
    class Parameters:
        method: str = parameter("l1_wavelet", "how to reconstruct", choices=tuple(METHODS))
        regularisation: float = parameter(0.0, "weight of the prior; 0: the method's own", minimum=0.0)
        iterations: int = parameter(0, "most iterations; 0: the method's own", minimum=0, maximum=10000)
        fill_calibration: bool = parameter(True, "use embedded calibration lines as imaging lines too")
        average: bool = parameter(True, "average k-space over averages; false: an image of each")
        image_series: int = parameter(0, "added to the images' series index", minimum=0, maximum=60000)
        intensity: float = parameter(
            2048.0,
            "pixel value of the first image's 99.9th percentile; 0 leaves intensities alone",
            minimum=0.0,
            maximum=16000.0,
        )

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        self._scale: float | None = None
        for item in items:
            if isinstance(item, ReconData):
                for space, bit in enumerate(item.bits):
                    if bit.data.data.size:
                        yield self._images(space, bit)
            else:
                yield item

    def _options(self) -> dict[str, Any]:
        """The method's arguments: the properties set, and the method's own defaults for the others."""
        own = inspect.signature(METHODS[self.parameters.method]).parameters
        names = ("regularisation", "iterations")
        return {name: getattr(self.parameters, name) or own[name].default for name in names}

    def _images(self, space: int, bit: ReconBit) -> ImageArray:
        all_maps = getattr(bit, "coil_maps", None)
        if all_maps is None:
            raise ReconError("gadget GenerativeRecon: no coil maps came; put gadgets.espirit Espirit before it")
        data, headers = bit.data.data, bit.data.headers
        embedded = bit.ref is not None and calibration_mode(self.header.encoding[space]) == "embedded"
        if embedded and self.parameters.fill_calibration:
            data = filled(data, bit.ref.data)
        if self.parameters.average:
            data, headers = averaged(data, headers)
        three_d = is_3d(data)
        ro, e1, e2, _, n_count, s_count, locations = data.shape
        options = self._options()
        solve = partial(METHODS[self.parameters.method], **options)
        # The same for all images of a scan: another text is another DICOM series.
        settings = " ".join(f"{name}={value:g}" for name, value in {**options, "map_sets": all_maps.shape[4]}.items())
        gain = adjustment_gain(data.shape, recon_steps(bit.data))  # so that pixels have `scale` at the chain's end
        result = np.zeros((ro, e1, e2, 1, n_count, s_count, locations), dtype=np.complex64)
        image_headers = np.empty((n_count, s_count, locations), dtype=object)
        metas: dict[tuple[int, int, int], str] = {}
        for loc in range(locations):
            for s in range(s_count):
                maps = maps_problems(all_maps[..., min(s, all_maps.shape[5] - 1), min(loc, all_maps.shape[6] - 1)])
                for n in range(n_count):
                    part = data[..., n, s, loc]
                    images = reconstruct(kspace_problems(part), sampled(part), maps, solve)
                    scale = self._intensity_scale(images)
                    result[:, :, :, 0, n, s, loc] = image_from_problems(images * (scale / gain), three_d)
                    header = image_header(headers[:, :, n, s, loc], bit.data, self.header, space)
                    header.image_series_index = self.parameters.image_series + space + 1
                    image_headers[n, s, loc] = header
                    metas[n, s, loc] = self._meta(space, bit, header, scale, settings)
        meta = [metas[n, s, loc] for loc in range(locations) for s in range(s_count) for n in range(n_count)]
        return ImageArray(result, image_headers, meta, None, None)

    def _intensity_scale(self, images: Tensor) -> float:
        """One factor for the whole scan, taken from its first image; halved for an image that 16 bit cannot hold."""
        if not self.parameters.intensity:
            return 1.0
        magnitude = images.abs().flatten()
        peak = float(magnitude.max())
        if self._scale is None:
            rank = max(1, round(0.999 * magnitude.numel()))
            level = float(magnitude.kthvalue(rank).values)
            if not level:
                return 1.0
            self._scale = self.parameters.intensity / level
        halvings = max(0, math.ceil(math.log2(self._scale * peak / FULL_SCALE))) if peak else 0
        if halvings:
            log.warning(
                "%s: an image is far brighter than the first one; its pixel scale is smaller (see RescaleSlope)",
                self.name,
            )
        return self._scale / 2**halvings

    def _meta(self, space: int, bit: ReconBit, header: ismrmrd.ImageHeader, scale: float, settings: str) -> str:
        sampling = bit.data.sampling
        meta = ismrmrd.Meta(
            {
                "encoding": str(space),
                "encoding_FOV": [f"{value:.6f}" for value in sampling.encoded_FOV],
                "recon_FOV": [f"{value:.6f}" for value in sampling.recon_FOV],
                "encoded_matrix": [str(value) for value in sampling.encoded_matrix],
                "recon_matrix": [str(value) for value in sampling.recon_matrix],
                **{
                    f"sampling_limits_{axis}": [str(value) for value in limit]
                    for axis, limit in zip(("RO", "E1", "E2"), sampling.sampling_limits, strict=True)
                },
                "GADGETRON_ImageNumber": str(header.image_index),
                "GADGETRON_ImageProcessingHistory": "GT",
                "GADGETRON_DataRole": "Image",
                SCALE_RATIO: f"{scale:.9g}",
                "GenreconMethod": self.parameters.method,
                "GenreconSettings": settings,
            }
        )
        warning = _CALIBRATION_WARNINGS.get(getattr(bit, "calibration", "measured"))
        if warning:
            meta["GenreconWarning"] = warning
        return str(meta.serialize())


_CALIBRATION_WARNINGS = {
    "completed": "no calibration lines were found: coil maps are from a k-space centre completed by low rank",
}


def filled(data: Array, ref: Array) -> Array:
    """K-space with the samples that only the calibration buffer has.

    Parameters
    ----------
    data, ref : complex64 [RO, E1, E2, CHA, N, S, LOC]; a ref of another shape is left alone

    Returns
    -------
    complex64 array like `data`
    """
    if ref.shape != data.shape:
        return data
    return np.where((data != 0).any(axis=3, keepdims=True), data, ref)


def averaged(data: Array, headers: Array) -> tuple[Array, Array]:
    """Average a buffer over the axis (N or S) along which the average counter changes; the measured samples only.

    Parameters
    ----------
    data : complex64 [RO, E1, E2, CHA, N, S, LOC]
    headers : object array [E1, E2, N, S, LOC]

    Returns
    -------
    Data and headers, that axis of length 1; unchanged when there is no such axis.
    """
    for axis in (2, 3):
        if headers.shape[axis] == 1:
            continue
        counters = [
            {int(head.idx.average) for head in headers.take(index, axis).flat if head.number_of_samples}
            for index in range(headers.shape[axis])
        ]
        found = [averages for averages in counters if averages]
        if all(len(averages) == 1 for averages in found) and len(set().union(*found)) == len(found) > 1:
            count = (data != 0).any(axis=3, keepdims=True).sum(axis=axis + 2, keepdims=True)
            mean = data.sum(axis=axis + 2, keepdims=True) / np.maximum(count, 1)
            return mean.astype(np.complex64), headers.take([0], axis)
    return data, headers


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
