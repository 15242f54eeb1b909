"""Small scans and images, and the gadgets they go through: what record.py sends to a real Gadgetron and the tests to
the twins.

Numbers come from numpy's RandomState, whose streams never change, so that the files recorded once stay valid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import AcquisitionBucket, ImageArray, ReconData
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_header_dtype, image_header_dtype

GOLDEN = Path(__file__).resolve().parent

Array = np.ndarray[Any, np.dtype[Any]]
Gadgets = Sequence[tuple[str, dict[str, str]]]


@dataclass
class Case:
    """Items sent through gadgets; `file` is the golden file its result is kept in, `<file>.npz`."""

    file: str
    name: str
    gadgets: Gadgets
    header: Any
    items: list[Any]


# --- scans ---------------------------------------------------------------------------------------------------------


def encoding(
    matrix: Sequence[int] = (16, 12, 1),
    recon: Sequence[int] | None = None,
    fov: Sequence[float] = (160.0, 120.0, 5.0),
    recon_fov: Sequence[float] | None = None,
    mode: str | None = "embedded",
    **limits: tuple[int, int, int] | None,
) -> Any:
    """An encoding section; `limits` are (minimum, centre, maximum), by default the matrix and one of all else."""

    def space(size: Sequence[int], millimetres: Sequence[float]) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", size, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", map(float, millimetres), strict=True))),
        )

    def limit(values: tuple[int, int, int] | None) -> Any:
        return values and xsd.limitType(minimum=values[0], center=values[1], maximum=values[2])

    others = ("average", "slice", "contrast", "phase", "repetition", "set", "segment")
    sizes = {"kspace_encoding_step_1": matrix[1], "kspace_encoding_step_2": matrix[2], **dict.fromkeys(others, 1)}
    ranges = {name: (0, size // 2, size - 1) for name, size in sizes.items()} | limits
    parallel = mode and xsd.parallelImagingType(
        accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1),
        calibrationMode=xsd.calibrationModeType(mode),
    )
    return xsd.encodingType(
        encodedSpace=space(matrix, fov),
        reconSpace=space(recon or matrix, recon_fov or fov),
        encodingLimits=xsd.encodingLimitsType(**{name: limit(values) for name, values in ranges.items()}),
        trajectory=xsd.trajectoryType.CARTESIAN,
        parallelImaging=parallel,
    )


def scan_header(*encodings: Any, bandwidth: float | None = 0.79, coils: int = 3) -> Any:
    """A header with these encodings; the coils are called A, B, C, …"""
    labels = [xsd.coilLabelType(coilNumber=coil, coilName="ABCDEFGH"[coil]) for coil in range(coils)]
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientID="P1"),
        measurementInformation=xsd.measurementInformationType(
            measurementID="golden_1", patientPosition=xsd.patientPositionType.HFS
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=3.0,
            relativeReceiverNoiseBandwidth=bandwidth,
            receiverChannels=coils,
            coilLabel=labels,
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123200000),
        encoding=list(encodings or [encoding()]),
    )


def complex_numbers(random: np.random.RandomState, *shape: int) -> Array:
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)


def line(
    random: np.random.RandomState,
    e1: int = 0,
    *,
    samples: int = 16,
    coils: int = 3,
    flags: Iterable[int] = (),
    **fields: Any,
) -> ismrmrd.Acquisition:
    """One readout; `fields` are fields of its header or of the counters in it."""
    head = ismrmrd.AcquisitionHeader()
    head.version = 1
    head.scan_counter = random.randint(1, 2**31)
    head.acquisition_time_stamp = random.randint(1, 2**31)
    head.number_of_samples = samples
    head.center_sample = samples // 2
    head.available_channels = head.active_channels = coils
    head.sample_time_us = 5.0
    head.position[:] = random.standard_normal(3)
    head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = np.eye(3)
    head.idx.kspace_encode_step_1 = e1
    for name, value in fields.items():
        setattr(head.idx if hasattr(head.idx, name) else head, name, value)
    head.flags = sum(1 << flag - 1 for flag in flags)
    return ismrmrd.Acquisition(head, complex_numbers(random, coils, samples))


NOISE = (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)
CALIBRATION = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)
BOTH = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING,)
PHASE_CORRECTION = (ismrmrd.ACQ_IS_PHASECORR_DATA,)


def loop(random: np.random.RandomState, lines: Iterable[int], **ranges: Any) -> list[ismrmrd.Acquisition]:
    """Lines within loops, the first named outermost; a value that is not a range or a list is the same for all."""
    loops = {name: values for name, values in ranges.items() if isinstance(values, range | list)}
    same = {name: value for name, value in ranges.items() if name not in loops}
    return [
        line(random, e1, **dict(zip(loops, counters, strict=True)), **same)
        for *counters, e1 in itertools.product(*loops.values(), lines)
    ]


def embedded(random: np.random.RandomState, size: int = 12, **ranges: Any) -> list[ismrmrd.Acquisition]:
    """Every second line, and four embedded calibration lines at the centre."""
    counters = {name: values for name, values in ranges.items() if isinstance(values, range | list)}
    same = {name: value for name, value in ranges.items() if name not in counters}
    result = []
    for values in itertools.product(*counters.values()):
        for e1 in range(size):
            centre = abs(e1 - size // 2 + 0.5) < 2
            flags = (BOTH if e1 % 2 == 0 else CALIBRATION) if centre else ()
            if e1 % 2 == 0 or centre:
                result.append(line(random, e1, flags=flags, **dict(zip(counters, values, strict=True)), **same))
    return result


def noise_cases() -> Iterable[Case]:
    def case(name: str, items: list[Any], properties: dict[str, str] | None = None, **header: Any) -> Case:
        return Case("noise", name, [("NoiseAdjustGadget", properties or {})], scan_header(**header), items)

    random = np.random.RandomState(1)

    def noise(count: int = 3, **fields: Any) -> list[Any]:
        return [line(random, samples=32, flags=NOISE, **{"sample_time_us": 20.0} | fields) for _ in range(count)]

    lines = loop(random, range(2))
    yield case("several_readouts", noise() + lines)
    yield case("one_readout", noise(1) + lines)
    yield case("default_bandwidth", noise() + lines, bandwidth=None)
    yield case("no_dwell_time", noise(sample_time_us=0.0) + lines)
    yield case("dwell_time_of_second", noise(1, sample_time_us=0.0) + noise(2) + lines)
    yield case("first_dwell_time_holds", noise() + lines + loop(random, range(2), sample_time_us=9.0))
    yield case("mean_not_subtracted", [_plus(item, 3 + 1j) for item in noise()] + lines)
    yield case("later_noise_ignored", noise() + lines + noise() + loop(random, range(2)))
    yield case("lines_before_noise", loop(random, range(2)) + noise() + lines)
    yield case("noise_of_zeros", [_times(item, 0) for item in noise()] + lines)
    yield case("without_noise", lines)
    yield case("switched_off", noise() + lines, {"perform_noise_adjust": "false"})
    yield case("other_coil_count", noise() + lines + loop(random, range(2), coils=2))
    yield case("scale_only_first", noise() + lines, {"scale_only_channels_by_name": "A"})
    yield case("scale_only_second", noise() + lines, {"scale_only_channels_by_name": "B"})
    yield case("scale_only_two", noise() + lines, {"scale_only_channels_by_name": "C , A"})
    yield case("scale_only_unknown", noise() + lines, {"scale_only_channels_by_name": "X,B"})


def _plus(item: ismrmrd.Acquisition, value: complex) -> ismrmrd.Acquisition:
    item.data[:] += np.complex64(value)
    return item


def _times(item: ismrmrd.Acquisition, value: complex) -> ismrmrd.Acquisition:
    item.data[:] *= np.complex64(value)
    return item


def readout_cases() -> Iterable[Case]:
    random = np.random.RandomState(2)
    echo = [("AsymmetricEchoAdjustROGadget", {})]
    cut = [("RemoveROOversamplingGadget", {})]
    for matrix, samples, centre in (
        (32, 24, 8),  # samples missing before the echo
        (32, 24, 16),  # after it
        (32, 24, 12),  # centred already
        (32, 32, 10),  # complete
        (32, 40, 10),  # more than the matrix
        (32, 20, 30),  # the centre lies outside
        (31, 25, 9),
        (31, 25, 12),
        (31, 25, 15),
        (33, 24, 0),
    ):
        fields = {"samples": samples, "center_sample": centre, "discard_pre": 3, "discard_post": 2}
        items = [line(random, **fields), line(random, flags=NOISE, **fields)]
        yield Case("readout", f"echo_{matrix}_{samples}_{centre}", echo, scan_header(encoding((matrix, 12, 1))), items)
    for matrix, recon, fov, recon_fov, samples in (
        (32, 16, 320.0, 160.0, 32),
        (32, 16, 320.0, 160.0, 31),
        (31, 15, 310.0, 155.0, 31),
        (30, 15, 300.0, 150.0, 30),
        (24, 20, 240.0, 200.0, 24),  # ratio 1.2, which no binary number is
        (33, 30, 330.0, 300.0, 33),  # ratio 1.1
        (27, 10, 270.0, 100.0, 27),
        (32, 16, 320.0, 149.7, 32),
        (22, 20, 176.0, 160.0, 22),
        (32, 16, 160.0, 160.0, 32),  # the matrix differs, the field of view does not
        (32, 32, 320.0, 300.0, 32),
        (32, 32, 320.0, 320.0, 32),
    ):
        space = encoding((matrix, 12, 1), (recon, 12, 1), (fov, 120.0, 5.0), (recon_fov, 120.0, 5.0))
        fields = {"samples": samples, "discard_pre": 5, "discard_post": 7}
        items = [line(random, **fields), line(random, flags=NOISE, center_sample=11, **fields)]
        name = f"oversampling_{matrix}_{recon}_{recon_fov:g}_{samples}"
        yield Case("readout", name, cut, scan_header(space), items)


def bucket_cases() -> Iterable[Case]:
    def case(name: str, items: list[Any], space: Any = None, **properties: str) -> Case:
        gadgets = [("AcquisitionAccumulateTriggerGadget", properties)]
        return Case("buckets", name, gadgets, scan_header(space or encoding()), items)

    random = np.random.RandomState(3)
    tiny = {"samples": 2, "coils": 1}
    counters = {"repetition": range(2), "slice": range(3)}
    space = encoding(repetition=(0, 0, 1), slice=(0, 0, 2))
    lines = embedded(random, **counters, **tiny)
    for trigger, sorting in (
        ("none", "none"),
        ("", "slice"),
        ("repetition", ""),
        ("repetition", "slice"),
        ("slice", "none"),
        ("slice", "slice"),
        ("slice", "repetition"),
        ("kspace_encode_step_1", "none"),
        ("repetition", "kspace_encode_step_1"),
        ("none", "n_acquisitions"),
    ):
        name = f"{trigger or 'empty'}_{sorting or 'empty'}"
        yield case(name, lines, space, trigger_dimension=trigger, sorting_dimension=sorting)
    numbers = {"n_acquisitions_before_trigger": "10", "n_acquisitions_before_ongoing_trigger": "7"}
    yield case("n_acquisitions", lines, space, trigger_dimension="n_acquisitions", **numbers)
    yield case(
        "n_acquisitions_slice", lines, space, trigger_dimension="n_acquisitions", sorting_dimension="slice", **numbers
    )
    yield case("n_acquisitions_default", lines, space, trigger_dimension="n_acquisitions")
    others = {"average": range(2), "contrast": range(2), "phase": range(2), "set": range(2), "segment": range(2)}
    loops = loop(random, range(1), **others, **tiny)
    for name in (*others, "user_3"):
        yield case(f"trigger_{name}", loops, trigger_dimension=name)
        yield case(f"sorting_{name}", loops, sorting_dimension=name)
    down = loop(random, range(2), repetition=[3, 1, 2, 2], slice=[2, 0], **tiny)
    yield case("descending", down, trigger_dimension="repetition", sorting_dimension="slice")
    flags = [(), CALIBRATION, BOTH, PHASE_CORRECTION, PHASE_CORRECTION + CALIBRATION, PHASE_CORRECTION + BOTH]
    flags += [CALIBRATION + BOTH, NOISE, (ismrmrd.ACQ_IS_NAVIGATION_DATA,), (ismrmrd.ACQ_IS_DUMMYSCAN_DATA,)]
    flags += [(ismrmrd.ACQ_IS_REVERSE,), (ismrmrd.ACQ_IS_RTFEEDBACK_DATA,), (ismrmrd.ACQ_IS_HPFEEDBACK_DATA,)]
    yield case("flags", [line(random, e1, flags=flag, **tiny) for e1, flag in enumerate(flags)])


def buffer_cases() -> Iterable[Case]:
    def case(
        name: str, items: list[Any], space: Any = None, trigger: str = "none", sorting: str = "none", **properties: str
    ) -> Case:
        accumulate = {"trigger_dimension": trigger, "sorting_dimension": sorting, "release_complete_slices": "false"}
        gadgets = [("AcquisitionAccumulateTriggerGadget", accumulate), ("BucketToBufferGadget", properties)]
        spaces = space if isinstance(space, list) else [space or encoding((8, 12, 1))]
        return Case("buffers", name, gadgets, scan_header(*spaces), items)

    random = np.random.RandomState(4)
    tiny = {"samples": 8, "coils": 2}
    small = (8, 12, 1)

    two = {"contrast": (0, 0, 1), "average": (0, 0, 1)}
    lines = embedded(random, average=range(2), contrast=range(2), **tiny)
    for n, s in (("contrast", "average"), ("average", "none"), ("none", ""), ("contrast", "contrast")):
        yield case(f"n_{n}_s_{s or 'empty'}", lines, encoding(small, **two), N_dimension=n, S_dimension=s)
    loops = {name: range(2) for name in ("phase", "repetition", "set", "segment", "slice")}
    for name, values in loops.items():
        lines = loop(random, range(0, 12, 3), **{name: values}, **tiny)
        space = encoding(small, **{name: (0, 0, 1)})
        yield case(f"n_{name}", lines, space, N_dimension=name)
        yield case(f"s_{name}_segments_ignored", lines, space, S_dimension=name, ignore_segment="true")
        yield case(f"split_{name}", lines, space, split_slices="true")
        yield case(f"split_n_{name}", lines, space, split_slices="true", N_dimension=name)
    lines = loop(random, range(0, 12, 3), average=range(2), segment=range(2), **tiny)
    yield case("n_segment_average", lines, encoding(small, average=(0, 0, 1)), N_dimension="segment")
    lines = loop(random, range(0, 12, 3), contrast=[1, 2], **tiny)
    yield case("contrasts_1_2", lines, encoding(small, contrast=(0, 0, 2)), N_dimension="contrast")
    lines = loop(random, range(0, 12, 3), contrast=[3], **tiny)
    yield case("contrast_3", lines, encoding(small, contrast=(0, 0, 3)), N_dimension="contrast")

    three = encoding(small, slice=(0, 0, 2))
    lines = embedded(random, slice=range(3), **tiny)
    yield case("slices_loc", lines, three)
    yield case("slices_split", lines, three, split_slices="true")
    yield case("slices_one_a_bucket", lines, three, trigger="slice")
    yield case("slices_sorted", lines, three, sorting="slice")
    yield case("slices_some", loop(random, range(0, 12, 4), slice=[1, 2], **tiny), three)
    yield case("slices_without_limits", lines[:8], encoding(small, slice=None))
    yield case("slice_limits_too_small", lines, encoding(small, slice=(0, 0, 1)))

    yield case("order", loop(random, range(0, 12, 4), repetition=[1, 0], set=[1, 0], contrast=[1, 0], **tiny))
    yield case("repeated_line", loop(random, [3, 3, 4], **tiny))
    yield case("other_average_repeated", loop(random, [3, 4], average=range(2), **tiny), S_dimension="contrast")

    calibration = [3, 4, 5, 6, 7]
    for mode in ("separate", "external", "interleaved", "other", "embedded"):
        space = encoding(small, mode=mode)
        prescan = loop(random, calibration, flags=CALIBRATION, **tiny)
        yield case(f"calibration_{mode}", prescan + loop(random, range(0, 12, 2), **tiny), space)
        partial = encoding(small, mode=mode, kspace_encoding_step_1=(0, 3, 8))
        prescan = loop(random, [1, 2, 3, 4], flags=CALIBRATION, **tiny)
        yield case(f"calibration_{mode}_partial", prescan + loop(random, range(0, 9, 2), **tiny), partial)
    interleaved = encoding(small, mode="interleaved", repetition=(0, 0, 1))
    shifted = [item for r in (0, 1) for item in loop(random, range(r, 12, 2), repetition=r, flags=BOTH, **tiny)]
    yield case("interleaved_two_repetitions", shifted, interleaved)
    yield case("interleaved_n_repetition", shifted, interleaved, N_dimension="repetition")
    separate = encoding(small, mode="separate", contrast=(0, 0, 1))
    prescan = loop(random, calibration, contrast=range(1), flags=CALIBRATION, **tiny)
    imaging = loop(random, range(0, 12, 2), contrast=range(2), **tiny)
    yield case("separate_fewer_contrasts", prescan + imaging, separate, N_dimension="contrast")

    partial = encoding(small, kspace_encoding_step_1=(0, 2, 7))
    yield case("partial_fourier_start", embedded(random, 8, **tiny), partial)
    yield case("partial_fourier_end", embedded(random, 8, **tiny), encoding(small, kspace_encoding_step_1=(0, 6, 7)))
    yield case("limits_from_2", loop(random, range(2, 10), **tiny), encoding(small, kspace_encoding_step_1=(2, 6, 9)))
    yield case("odd_matrix", loop(random, range(13), **tiny), encoding((8, 13, 1)))
    off_centre = encoding((8, 13, 1), kspace_encoding_step_1=(0, 5, 11))
    yield case("odd_matrix_off_centre", loop(random, range(12), **tiny), off_centre)

    for name, fields in {
        "discards": {"samples": 8, "discard_pre": 2, "discard_post": 1},
        "discards_off_centre": {"samples": 8, "discard_pre": 2, "discard_post": 1, "center_sample": 5},
        "centre_outside": {"samples": 8, "discard_pre": 2, "center_sample": 9},
        "odd_samples": {"samples": 9},
    }.items():
        yield case(f"readout_{name}", loop(random, range(0, 12, 3), coils=2, **fields))
    longer = loop(random, range(3), **tiny) + loop(random, range(3, 6), coils=2, samples=6, center_sample=3)
    yield case("readout_shorter_lines", longer)

    volume = (8, 6, 4)
    space = encoding(volume, fov=(80.0, 60.0, 40.0))
    lines = loop(random, range(0, 6, 2), kspace_encode_step_2=range(4), **tiny)
    yield case("volume", lines, space)
    partial = encoding(
        volume, fov=(80.0, 60.0, 40.0), kspace_encoding_step_1=(0, 2, 4), kspace_encoding_step_2=(0, 1, 2)
    )
    yield case("volume_partial", loop(random, range(5), kspace_encode_step_2=range(3), **tiny), partial)
    for mode in ("separate", "interleaved", "embedded"):
        space = encoding(volume, fov=(80.0, 60.0, 40.0), mode=mode)
        prescan = loop(random, [2, 3], kspace_encode_step_2=[1, 2], flags=CALIBRATION, **tiny)
        yield case(f"volume_{mode}", prescan + lines, space)
    slabs = encoding(volume, fov=(80.0, 60.0, 40.0), slice=(0, 0, 1))
    yield case(
        "volume_slabs", loop(random, range(0, 6, 3), slice=range(2), kspace_encode_step_2=range(4), **tiny), slabs
    )

    spaces = [encoding(small), encoding((8, 6, 1), fov=(160.0, 60.0, 5.0))]
    both = [item for s, n in enumerate((12, 6)) for item in loop(random, range(0, n, 2), encoding_space_ref=s, **tiny)]
    yield case("two_encodings", both, spaces)


# --- image arrays and images ---------------------------------------------------------------------------------------


def image_header(random: np.random.RandomState, index: int, **fields: Any) -> ismrmrd.ImageHeader:
    head = ismrmrd.ImageHeader()
    head.version = 1
    head.data_type = ismrmrd.DATATYPE_CXFLOAT
    head.measurement_uid = 7
    head.field_of_view[:] = (160.0, 120.0, 5.0)
    head.position[:] = random.standard_normal(3)
    head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = np.eye(3)
    head.image_type = ismrmrd.IMTYPE_MAGNITUDE
    head.image_index = index
    head.image_series_index = 1
    head.slice = index % 5
    head.user_int[:] = range(index, index + 8)
    for name, value in fields.items():
        setattr(head, name, value)
    return head


def image_array(
    random: np.random.RandomState,
    size: Sequence[int],
    loops: Sequence[int] = (1, 1, 1),
    channels: int = 1,
    fov: Sequence[float] = (160.0, 120.0, 5.0),
    recon_fov: Sequence[float] | None = None,
    with_meta: bool = True,
) -> ImageArray:
    """An image array [X, Y, Z, CHA, N, S, LOC] of random pixels; `loops` are (N, S, LOC)."""
    headers = np.empty(tuple(loops), dtype=object)
    for index, place in enumerate(np.ndindex(*loops)):
        headers[place] = image_header(random, index + 1, matrix_size=tuple(size), channels=channels)
    meta = []
    for index in range(headers.size if with_meta else 0):
        fields = {
            "encoding": "0",
            "encoding_FOV": [f"{value:.6f}" for value in fov],
            "recon_FOV": [f"{value:.6f}" for value in recon_fov or fov],
            "GADGETRON_ImageComment": ["GT", f"image {index}", "<µ & more>"],
        }
        meta.append(ismrmrd.Meta(fields).serialize().encode("ascii", "xmlcharrefreplace").decode())
    data = complex_numbers(random, *size, channels, *loops)
    return ImageArray(np.asfortranarray(data), headers, meta, None, None)


def field_of_view_cases() -> Iterable[Case]:
    random = np.random.RandomState(5)
    fov, volume = (160.0, 120.0, 5.0), (160.0, 120.0, 40.0)
    for name, size, recon, image_fov, recon_fov in (
        ("same", (16, 12, 1), (16, 12, 1), fov, fov),
        ("fill_e1", (16, 12, 1), (16, 18, 1), fov, fov),
        ("fill_e1_odd", (16, 13, 1), (16, 18, 1), fov, fov),
        ("fill_e1_to_odd", (16, 12, 1), (16, 17, 1), fov, fov),
        ("fill_e1_odd_to_odd", (15, 13, 1), (15, 19, 1), fov, fov),
        ("oversampled_e1", (16, 18, 1), (16, 12, 1), (160.0, 180.0, 5.0), fov),
        ("oversampled_e1_uneven", (16, 16, 1), (16, 12, 1), (160.0, 157.3, 5.0), fov),
        ("oversampled_e1_odd", (16, 17, 1), (16, 13, 1), (160.0, 160.0, 5.0), fov),
        ("oversampled_e1_fill", (16, 12, 1), (16, 16, 1), (160.0, 150.0, 5.0), fov),
        ("oversampled_e1_half", (16, 14, 1), (16, 11, 1), (160.0, 130.0, 5.0), (160.0, 110.0, 5.0)),
        ("fill_ro", (16, 12, 1), (24, 12, 1), fov, fov),
        ("fill_ro_odd", (15, 12, 1), (24, 12, 1), fov, fov),
        ("fill_ro_to_odd", (16, 12, 1), (23, 12, 1), fov, fov),
        ("crop_ro", (24, 12, 1), (16, 12, 1), fov, fov),
        ("crop_ro_odd", (24, 12, 1), (15, 12, 1), fov, fov),
        ("crop_ro_from_odd", (23, 12, 1), (16, 12, 1), fov, fov),
        ("crop_e1", (16, 18, 1), (16, 12, 1), fov, fov),
        ("crop_e1_odd", (16, 17, 1), (16, 11, 1), fov, fov),
        ("fill_both", (16, 12, 1), (24, 18, 1), fov, fov),
        ("fill_e1_crop_ro", (24, 12, 1), (16, 18, 1), fov, fov),
        ("fill_ro_crop_e1", (16, 18, 1), (24, 12, 1), fov, fov),
        ("crop_both", (24, 18, 1), (16, 12, 1), fov, fov),
        ("oversampled_e1_fill_ro", (16, 16, 1), (32, 24, 1), (160.0, 160.0, 5.0), fov),
        ("oversampled_e1_crop_ro", (24, 16, 1), (16, 12, 1), (160.0, 160.0, 5.0), fov),
        ("oversampled_ro", (16, 12, 1), (16, 12, 1), (240.0, 120.0, 5.0), fov),
        ("twice_ro", (32, 12, 1), (16, 12, 1), (320.0, 120.0, 5.0), fov),
        ("twice_ro_fill", (32, 12, 1), (16, 18, 1), (320.0, 120.0, 5.0), fov),
        ("smaller_than_recon_e1", (16, 12, 1), (16, 18, 1), (160.0, 100.0, 5.0), fov),
        ("other_thickness", (16, 12, 1), (16, 18, 1), (160.0, 120.0, 5.0), (160.0, 120.0, 7.0)),
        ("volume_same", (8, 6, 4), (8, 6, 4), volume, volume),
        ("volume_oversampled_e2", (8, 6, 10), (8, 6, 8), (160.0, 120.0, 50.0), volume),
        ("volume_oversampled_e2_fill", (8, 6, 6), (8, 6, 8), (160.0, 120.0, 50.0), volume),
        ("volume_oversampled_all", (8, 9, 6), (12, 8, 8), (160.0, 160.0, 50.0), volume),
        ("volume_fill_e2", (8, 6, 6), (8, 6, 8), volume, volume),
        ("volume_fill_e1", (8, 6, 4), (8, 9, 4), volume, volume),
        ("volume_fill_ro", (8, 6, 4), (12, 6, 4), volume, volume),
        ("volume_fill_all", (7, 6, 5), (11, 9, 8), volume, volume),
        ("volume_crop_e2", (8, 6, 9), (8, 6, 6), volume, volume),
        ("volume_crop_all", (11, 9, 8), (8, 6, 5), volume, volume),
        ("volume_fill_e2_crop_ro", (12, 6, 5), (8, 6, 8), volume, volume),
        ("volume_to_one", (8, 6, 4), (8, 6, 1), volume, volume),
        ("volume_smaller_than_recon_e2", (8, 6, 4), (8, 6, 8), (160.0, 120.0, 30.0), volume),
    ):
        header = scan_header(encoding((16, 12, size[2]), recon, image_fov, recon_fov))
        array = image_array(random, size, (2, 1, 1), fov=image_fov, recon_fov=recon_fov)
        yield Case("field_of_view", name, [("GenericReconFieldOfViewAdjustmentGadget", {})], header, [array])
    header = scan_header(encoding((12, 8, 1), (16, 8, 1), (160.0, 160.0, 5.0), fov))
    array = image_array(random, (12, 8, 1), (2, 2, 2), channels=2, fov=(160.0, 160.0, 5.0), recon_fov=fov)
    yield Case("field_of_view", "all_axes", [("GenericReconFieldOfViewAdjustmentGadget", {})], header, [array])


def image(
    random: np.random.RandomState, pixels: Array, index: int, meta: dict[str, Any] | None = None, **fields: Any
) -> Any:
    """A single image of pixels (cha, z, y, x)."""
    result = ismrmrd.Image(image_header(random, index, **fields))
    head = result.getHead()
    head.data_type = ismrmrd.image.get_data_type_from_dtype(pixels.dtype)
    head.channels = pixels.shape[0]
    head.matrix_size[:] = pixels.shape[:0:-1]
    result = ismrmrd.Image(head)
    result.data[:] = pixels
    result.attribute_string = ismrmrd.Meta(meta).serialize() if meta else ""
    return result


def image_cases() -> Iterable[Case]:
    random = np.random.RandomState(6)
    header = scan_header()
    split, to_float = ("ImageArraySplitGadget", {}), ("ComplexToFloatGadget", {})
    finish = ("ImageFinishGadget", {})

    arrays = [image_array(random, (5, 4, 3), (2, 3, 2), channels=2), image_array(random, (6, 4, 1))]
    yield Case("images", "split", [split], header, arrays)
    yield Case(
        "images", "split_without_meta", [split], header, [image_array(random, (4, 3, 1), (2, 1, 2), with_meta=False)]
    )
    yield Case("images", "split_to_float", [split, to_float], header, arrays)
    pixels = complex_numbers(random, 2, 1, 4, 5)
    meta = {"GADGETRON_ImageComment": ["GT", "a & b"], "GADGETRON_WindowCenter": "1000"}
    others = [
        image(random, (1000 * pixels.real).astype(kind), n, meta)
        for n, kind in enumerate((np.uint16, np.float32, np.float64))
    ]
    yield Case("images", "split_passes_images", [split], header, [image(random, pixels, 9), *others])
    types = [image(random, pixels, kind, meta, image_type=kind) for kind in range(8)]
    yield Case("images", "to_float", [to_float], header, types)
    yield Case("images", "to_float_passes_others", [to_float], header, others)
    yield Case("images", "finish", [finish], header, [*types, *others])

    wide = (3000 * random.standard_normal((1, 1, 20, 20))).astype(np.float32)
    halves = (np.arange(-16, 304).reshape(1, 1, 16, 20) / 2).astype(np.float32)
    turn = np.linspace(-np.pi, np.pi, 320).reshape(1, 1, 16, 20).astype(np.float32)
    for name, properties in {
        "default": {},
        "chain": {"max_intensity": "32767", "min_intensity": "0", "intensity_offset": "0"},
        "offset": {"max_intensity": "4095", "min_intensity": "10", "intensity_offset": "1000"},
        "narrow": {"max_intensity": "100", "min_intensity": "50", "intensity_offset": "70"},
    }.items():
        items = [
            image(random, pixels, number, meta, image_type=kind)
            for number, (kind, pixels) in enumerate(itertools.product(range(1, 5), (wide, halves, turn)))
        ]
        items += [image(random, halves, 30 + kind, image_type=kind) for kind in range(1, 5)]
        yield Case("images", f"to_ushort_{name}", [("FloatToUShortGadget", properties)], header, items)
    yield Case(
        "images", "to_ushort_passes_others", [("FloatToUShortGadget", {})], header, [*types, others[0], others[2]]
    )
    for centre in ("1000.7", "-3", "1e3"):
        item = image(random, halves, 1, {"GADGETRON_WindowCenter": centre}, image_type=ismrmrd.IMTYPE_REAL)
        yield Case("images", f"window_centre_{centre}", [("FloatToUShortGadget", {})], header, [item])
    for kind in (0, 5, 6):
        item = image(random, halves, 1, image_type=kind)
        yield Case("images", f"to_ushort_type_{kind}", [("FloatToUShortGadget", {})], header, [item])
    shipped = {"max_intensity": "32767", "min_intensity": "0", "intensity_offset": "0"}
    chain = [("GenericReconFieldOfViewAdjustmentGadget", {}), split, to_float, ("FloatToUShortGadget", shipped), finish]
    header = scan_header(encoding((12, 12, 1), (16, 12, 1), (160.0, 160.0, 5.0), (160.0, 120.0, 5.0)))
    array = image_array(random, (12, 12, 1), (2, 1, 2), fov=(160.0, 160.0, 5.0), recon_fov=(160.0, 120.0, 5.0))
    array.data *= 500
    yield Case("images", "all_gadgets", chain, header, [array])


def cases() -> list[Case]:
    """All cases, in a fixed order."""
    groups = (noise_cases(), readout_cases(), bucket_cases(), buffer_cases(), field_of_view_cases(), image_cases())
    return [case for group in groups for case in group]


# --- items as arrays -----------------------------------------------------------------------------------------------


def _headers(heads: Iterable[Any], dtype: Any) -> Array:
    joined = b"".join(bytes(head) for head in heads)
    return np.frombuffer(joined, dtype=dtype)


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0, np.complex64)


def _acquisitions(items: Sequence[ismrmrd.Acquisition]) -> dict[str, Array]:
    heads = [item.getHead() for item in items]
    return {"data": _joined([item.data for item in items]), "headers": _headers(heads, acquisition_header_dtype)}


def _bucket(item: AcquisitionBucket) -> dict[str, Array]:
    def described(stats: Any) -> Array:
        rows = [[f"{name}={sorted(map(int, values))}" for name, values in sorted(vars(one).items())] for one in stats]
        return np.array(rows, dtype=str)

    counters = {name: [line.scan_counter for line in getattr(item, name)] for name in ("data", "ref")}
    result = {name: np.array(values, dtype=np.int64) for name, values in counters.items()}
    return result | {"datastats": described(item.datastats), "refstats": described(item.refstats)}


def _recon_data(item: ReconData) -> dict[str, Array]:
    result = {}
    for number, bit in enumerate(item.bits):
        for name, buffer in (("data", bit.data), ("ref", bit.ref)):
            if buffer is None:
                continue
            sampling = buffer.sampling
            floats = [*sampling.encoded_FOV, *sampling.recon_FOV]
            limits = [value for limit in sampling.sampling_limits for value in limit]
            whole = [*sampling.encoded_matrix, *sampling.recon_matrix, *limits]
            heads = _headers(buffer.headers.ravel(order="F"), acquisition_header_dtype)
            result |= {
                f"{number}.{name}": np.asarray(buffer.data),
                f"{number}.{name}.headers": heads.reshape(buffer.headers.shape, order="F"),
                f"{number}.{name}.fov": np.array(floats, np.float32),
                f"{number}.{name}.sampling": np.array(whole, np.int64),
            }
    return result


def _image(item: ismrmrd.Image) -> dict[str, Array]:
    head = _headers([item.getHead()], image_header_dtype).copy()
    head["attribute_string_len"] = 0  # with or without the closing NUL
    return {"data": np.asarray(item.data), "header": head, "meta": np.array(item.attribute_string.rstrip("\0"))}


def _image_array(item: ImageArray) -> dict[str, Array]:
    heads = _headers(item.headers.ravel(order="F"), image_header_dtype)
    return {
        "data": np.asarray(item.data),
        "headers": heads.reshape(item.headers.shape, order="F"),
        "meta": np.array(item.meta, dtype=str),
    }


def as_arrays(items: Sequence[Any]) -> dict[str, Array]:
    """What came out of a gadget as named arrays; `kinds` has the type of each item."""
    result = {"kinds": np.array([type(item).__name__ for item in items], dtype=str)}
    lines = [item for item in items if isinstance(item, ismrmrd.Acquisition)]
    if lines:
        result |= {f"lines.{name}": array for name, array in _acquisitions(lines).items()}
    packers = {AcquisitionBucket: _bucket, ReconData: _recon_data, ismrmrd.Image: _image, ImageArray: _image_array}
    for number, item in enumerate(items):
        if type(item) in packers:
            result |= {f"{number}.{name}": array for name, array in packers[type(item)](item).items()}
    return result
