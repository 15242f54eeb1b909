"""The kinds of images that a reconstruction hands out, each a series of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import ismrmrd

OUTPUT = "GenreconOutput"  # meta attribute: name of the kind of an image, for all but magnitude
INTENSITY_OFFSET = 16384  # value of zero in signed images of 16 bit: half of what FloatToUShortGadget can hold
ALONE = "standard_deviation"  # comes with property `samples`, not with property `output`

Scaling = Literal["scan", "angle", "fixed"]


@dataclass(frozen=True)
class Output:
    """One kind of images.

    Parameters
    ----------
    name : in property `output` and in the meta attribute `GenreconOutput`
    series : added to the image_series_index of the magnitude
    image_type : ISMRMRD image type, by which ComplexToFloatGadget and FloatToUShortGadget treat the pixels
    terms : values of DICOM's ImageType from the third on
    component : DICOM's ComplexImageComponent
    words : what stands behind the method in `GenreconMethod` and SeriesDescription; empty for the usual images
    scaling : pixels are multiplied by the scan's pixel scale x `gain`, by `gain` alone (quantities), or are angles
    gain : see scaling
    units : of the rescaled values: "" for arbitrary ones, "rad", "1" for ratios
    signed : whether values below zero occur: the pixels are shifted by `intensity_offset`
    asked : whether property `output` can ask for it
    of_image : whether it is the complex image or a part of it
    help : one line for the docs
    """

    name: str
    series: int
    image_type: int
    terms: tuple[str, ...]
    component: str
    words: str
    scaling: Scaling
    help: str
    gain: float = 1.0
    units: str = ""
    signed: bool = False
    asked: bool = True
    of_image: bool = True


MAGNITUDE = Output(
    "magnitude", 0, ismrmrd.IMTYPE_MAGNITUDE, ("M",), "MAGNITUDE", "", "scan", "magnitude of the complex image"
)
# Standard deviations are small: they have this many times the pixel scale of the images.
STANDARD_DEVIATION = Output(
    ALONE, 100, ismrmrd.IMTYPE_MAGNITUDE, ("M",), "MAGNITUDE", "standard deviation", "scan",
    "standard deviation of the magnitude over posterior samples", gain=16.0, asked=False, of_image=False,
)  # fmt: skip
PHASE = Output(
    "phase", 200, ismrmrd.IMTYPE_PHASE, ("P", "PHASE"), "PHASE", "phase", "angle", "phase of the complex image",
    units="rad", signed=True,
)  # fmt: skip
REAL = Output(
    "real", 300, ismrmrd.IMTYPE_REAL, ("R", "REAL"), "REAL", "real", "scan", "real part of the complex image",
    signed=True,
)  # fmt: skip
IMAGINARY = Output(
    "imaginary", 400, ismrmrd.IMTYPE_IMAG, ("I", "IMAGINARY"), "IMAGINARY", "imaginary", "scan",
    "imaginary part of the complex image", signed=True,
)  # fmt: skip
COMPLEX = Output(
    "complex", 500, ismrmrd.IMTYPE_COMPLEX, ("MIXED",), "MIXED", "complex", "scan",
    "complex image (MRD only, not DICOM)",
)  # fmt: skip
SNR = Output(
    "snr", 600, ismrmrd.IMTYPE_MAGNITUDE, ("OTHER", "SNR"), "MAGNITUDE", "SNR", "fixed",
    "signal over noise of each pixel (needs a noise scan, or noise_level)", gain=10.0, units="1", of_image=False,
)  # fmt: skip
GFACTOR = Output(
    "gfactor", 700, ismrmrd.IMTYPE_MAGNITUDE, ("OTHER", "GFACTOR"), "MAGNITUDE", "g-factor", "fixed",
    "noise over that of as many samples without parallel imaging", gain=1000.0, units="1", of_image=False,
)  # fmt: skip
NOISE_MAPS = (SNR, GFACTOR)

OUTPUTS = {each.name: each for each in (MAGNITUDE, STANDARD_DEVIATION, PHASE, REAL, IMAGINARY, COMPLEX, SNR, GFACTOR)}


def asked_names() -> list[str]:
    """Names that property `output` takes."""
    return [name for name, output in OUTPUTS.items() if output.asked]


def asked_outputs(text: str) -> tuple[Output, ...]:
    """The outputs of a comma-separated list, each once, in the order of their series.

    Raises ValueError for an unknown name and for an empty list.
    """
    names = [name for name in (part.strip().lower() for part in text.split(",")) if name]
    known = asked_names()
    for name in names or [""]:
        if name not in known:
            wrong = f"unknown output '{name}'" if name else "no output"
            raise ValueError(f"{wrong}; it takes any of: {', '.join(known)}")
    return tuple(sorted({OUTPUTS[name] for name in names}, key=lambda output: output.series))


def output_named(names: Iterable[str], image_type: int) -> Output:
    """Kind of an image, by its meta attribute `GenreconOutput`; without, or contradicted by its type, by that."""
    for name in names:
        if (found := OUTPUTS.get(name)) is not None and found.image_type == image_type:
            return found
    by_type = (output for output in OUTPUTS.values() if output.image_type == image_type)
    return next(by_type, MAGNITUDE)
