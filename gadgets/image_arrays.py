"""Image arrays from what was reconstructed: one for each kind of output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import ismrmrd
import numpy as np
import torch
from gadgetron.types import ImageArray
from gadgetron.types.recon_data import ReconBit
from torch import Tensor

from gadgets.buffers import image_from_problems, is_3d, is_of_reference, keep, slices_come_again
from gadgets.image_headers import image_header, recon_steps
from gadgets.images import (
    NOISE,
    NOISE_NAME,
    OWN_CALIBRATION,
    REFERENCE,
    REFERENCE_NAME,
    SCALE_OFFSET,
    SCALE_RATIO,
    WARNINGS,
    WINDOW_CENTER,
    make_image,
)
from gadgets.noise_map_pixels import final_matrix, noise_map_pixels
from gadgets.numbering import Numbers
from gadgets.outputs import COMPLEX, MAGNITUDE, NOISE_MAPS, OUTPUT, PHASE, SNR, STANDARD_DEVIATION, Output
from gadgets.partial_fourier import coverage_notes
from gadgets.pixel_scale import PixelScale
from gadgets.shading import Shading, corrected, shading_notes
from gadgets.solvers.outcome import Outcome
from gadgets.solvers.work import BufferWork, ImageWork
from gadgets.survey import Survey
from gadgets.twins.field_of_view import GenericReconFieldOfViewAdjustmentGadget, adjustment_gain
from gadgets.twins.image_array_split import ImageArraySplitGadget
from priors.signal.phase_reference import PhaseReference

HIGHEST_INDEX = 2**16 - 1  # that the header of an image holds


class ImageArrays:
    """Makes the image arrays of a scan, and numbers their images.

    Parameters
    ----------
    parameters : of `GenerativeRecon`
    header : ismrmrd.xsd.ismrmrdHeader
    survey : of the lines, where they are known beforehand
    scale : pixel scale of the scan; it must be known when arrays are asked for
    settings : of the method, as a text for the images' meta
    outputs : kinds of images that are asked for
    """

    def __init__(
        self,
        parameters: Any,
        header: Any,
        survey: Survey | None,
        scale: PixelScale,
        settings: str,
        outputs: Sequence[Output],
    ) -> None:
        self._parameters, self._header, self._scale, self._settings = parameters, header, scale, settings
        self._outputs = outputs
        self._numbers: dict[int, Numbers] = {}  # of the images of each series
        self._references: dict[tuple[int, int], PhaseReference] = {}  # of each encoding space and slice
        self._come_again = slices_come_again(header, survey)
        self._shading = Shading(parameters.shading, self._come_again)

    def of(self, work: BufferWork) -> Iterator[ImageArray | ismrmrd.Image]:
        """The image arrays of a bit: one for each output that its images have, all images of a bit together.

        Complex images come as single images of the final matrix, complex128: ComplexToFloatGadget, which makes a
        magnitude of all others, passes these on.
        """
        whole = len(work.images) == math.prod(work.data.shape[4:])
        for images in [work.images] if whole else [[image] for image in work.images]:
            outcomes = [image.outcome for image in images if image.outcome is not None]
            for output in self._outputs:
                if output in NOISE_MAPS:
                    yield from self._noise_maps(work, images, output)
                    continue
                if all(pixels_of(output, outcome) is None for outcome in outcomes):
                    continue
                array = self._array(work, images, output)
                yield from [array] if output is not COMPLEX else self._single_images(array)
                deviations = any(outcome.deviations is not None for outcome in outcomes)
                if output is MAGNITUDE and deviations:
                    yield self._array(work, images, STANDARD_DEVIATION)

    def _phasor(self, image: ImageWork) -> Tensor:
        """What gives an image the phase that all images of its slice are relative to: that of its first one's maps."""
        assert image.outcome is not None
        maps = image.maps[:, 0]
        space, location = image.counters[:2]
        reference = self._references.get((space, location))
        if reference is None or not reference.fits(maps):
            reference = PhaseReference.of(maps, image.outcome.images)
            if bool(image.outcome.images.any()):
                keep(self._references, (space, location), reference, self._come_again)
        return reference.phasor(maps)

    def _single_images(self, array: ImageArray) -> Iterator[ismrmrd.Image]:
        adjustment = GenericReconFieldOfViewAdjustmentGadget()
        adjustment.configure(self._header, {})
        for image in ImageArraySplitGadget().process(adjustment.process(iter([array]))):
            yield make_image(image.getHead(), image.data.astype(np.complex128), image.attribute_string)

    def _noise_maps(self, work: BufferWork, images: list[ImageWork], output: Output) -> Iterator[ImageArray]:
        """Noise maps of the images that have one."""
        able = [
            image for image in images if image.noise_maps is not None and (output is not SNR or image.noise_maps.level)
        ]
        for some in [able] if len(able) == len(images) else [[image] for image in able]:
            yield self._array(work, some, output)

    def _array(self, work: BufferWork, images: list[ImageWork], output: Output) -> ImageArray:
        """Image array of one output of all images or of one."""
        space, bit, shape = work.space, work.bit, work.data.shape
        gain = adjustment_gain(shape, recon_steps(bit.data))  # so that pixels have `scale` at the chain's end
        counts = shape[4:] if len(images) > 1 else (1, 1, 1)
        quantity = output in NOISE_MAPS  # already on the matrix of the chain's end
        size = final_matrix(work) if quantity else shape[:3]
        array = np.zeros((*size, 1, *counts), dtype=np.complex64)
        headers = np.empty(counts, dtype=object)
        metas = {}
        for image in images:
            assert image.outcome is not None
            field = self._shading.of(image, output)
            if quantity:
                values = noise_map_pixels(output, work, image)
                scale = self._scale.of(torch.from_numpy(values), output)
                plane = values * scale
            else:
                pixels = pixels_of(output, image.outcome)
                if pixels is None:
                    pixels = torch.zeros(image.outcome.images.shape)
                if output.of_image and output is not MAGNITUDE:
                    if image.phasor is None:
                        image.phasor = self._phasor(image)
                    pixels = pixels * image.phasor
                pixels = corrected(pixels, field)
                scale = self._scale.of(pixels, output)
                plane = image_from_problems(pixels * (scale / gain), is_3d(work.data))
            n, s, loc = image.place
            lines = work.headers[:, :, n, s, loc]
            if len(images) == 1:
                n = s = loc = 0
            array[:, :, :, 0, n, s, loc] = plane
            header = image_header(lines, bit.data, self._header, space)
            header.matrix_size[:] = size
            header.image_type = output.image_type
            header.image_series_index = self._parameters.image_series + space + 1 + output.series
            numbers = self._numbers.setdefault(header.image_series_index, Numbers(HIGHEST_INDEX))
            header.image_index = numbers.take(header.image_index)
            headers[n, s, loc] = header
            metas[loc, s, n] = self._meta(work, header, scale, output, image, shading_notes(field))
        return ImageArray(array, headers, [metas[place] for place in sorted(metas)], None, None)

    def _offset(self, output: Output) -> dict[str, str]:
        """Meta attributes that say what FloatToUShortGadget makes of signed values."""
        if not output.signed:
            return {}
        offset = self._parameters.intensity_offset
        if output is PHASE:
            return {SCALE_RATIO: f"{offset / math.pi:.9g}", SCALE_OFFSET: str(offset)}
        return {SCALE_OFFSET: str(offset), WINDOW_CENTER: "0"}  # the gadget adds its own offset to the centre

    def _meta(
        self,
        work: BufferWork,
        header: ismrmrd.ImageHeader,
        scale: float,
        output: Output,
        image: ImageWork,
        notes: dict[str, str],
    ) -> str:
        sampling = work.bit.data.sampling
        parameters = self._parameters
        on_grid = output in NOISE_MAPS and bool(recon_steps(work.bit.data))
        extent, matrix = (
            (sampling.recon_FOV, sampling.recon_matrix) if on_grid else (sampling.encoded_FOV, sampling.encoded_matrix)
        )
        meta = ismrmrd.Meta(
            {
                "encoding": str(work.space),
                "encoding_FOV": [f"{value:.6f}" for value in extent],
                "recon_FOV": [f"{value:.6f}" for value in sampling.recon_FOV],
                "encoded_matrix": [str(value) for value in matrix],
                "recon_matrix": [str(value) for value in sampling.recon_matrix],
                **{
                    f"sampling_limits_{axis}": [str(value) for value in limit]
                    for axis, limit in zip(("RO", "E1", "E2"), sampling.sampling_limits, strict=True)
                },
                "GADGETRON_ImageNumber": str(header.image_index),
                "GADGETRON_ImageProcessingHistory": "GT",
                "GADGETRON_DataRole": "Image",
                SCALE_RATIO: f"{scale:.9g}",
                **self._offset(output),
                "GenreconMethod": f"{parameters.method} {output.words}".strip(),
                # The same for all images of a scan: another text is another DICOM series.
                "GenreconSettings": f"{self._settings} map_sets={work.sets}",
                **coverage_notes(image.acquired, parameters.method),
                **image.notes(),
                **notes,
                **({NOISE: parameters.noise} if parameters.noise else {}),
                **({NOISE_NAME: parameters.noise_name} if parameters.noise_name else {}),
                **self._reference(work.bit),
                **({} if output in (MAGNITUDE, STANDARD_DEVIATION) else {OUTPUT: output.name}),
                **(image.noise_maps.notes if image.noise_maps is not None and output in NOISE_MAPS else {}),
            }
        )
        warnings = image.warnings() + work.calibration_warnings
        if image.noise_maps is not None and output in NOISE_MAPS:
            warnings += image.noise_maps.warnings
        if warnings:
            meta[WARNINGS] = warnings
        return str(meta.serialize())

    def _reference(self, bit: ReconBit) -> dict[str, str]:
        """What images say of the calibration, where a reference scan is at hand."""
        parameters = self._parameters
        if not parameters.reference:
            return {}
        if not is_of_reference(bit.ref):
            return {REFERENCE: OWN_CALIBRATION}
        name = {REFERENCE_NAME: parameters.reference_name} if parameters.reference_name else {}
        return {REFERENCE: parameters.reference, **name}


def pixels_of(output: Output, outcome: Outcome) -> Tensor | None:
    """Pixels (batch, y, x) of an output, before they are scaled; None where the reconstruction does not give it.

    Complex for the magnitude and the parts of the complex image: ComplexToFloatGadget takes them out of it.
    """
    if output is not MAGNITUDE and output.of_image and outcome.mean is not None:
        return outcome.mean
    if output.of_image:
        return outcome.images
    return outcome.deviations if output is STANDARD_DEVIATION else None
