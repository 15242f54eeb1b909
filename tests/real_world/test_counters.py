"""Counters that are wrong, absent, in another order or beyond their limits, as scanners and converters write them."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.errors import ReconError
from tests.raw_files import header, kspace, line, lines, pixels
from tests.real_world.conftest import is_right


def brightness(images):
    """Brightness of images relative to the first."""
    levels = [np.sort(pixels(image).ravel())[-30:].mean() for image in images]
    return np.array(levels) / levels[0]


def test_fewer_repetitions_than_announced(reconstruct, data):
    """gadgetron#1287: 10000 are announced."""
    _, images = reconstruct(header(limits={"repetition": (0, 9999, 0)}), lines(data))
    assert len(images) == 1
    assert is_right(images[0])


@pytest.mark.parametrize("limit", [2, 59])
def test_more_or_fewer_phases_than_announced(reconstruct, data, limit):
    """gadgetron#1287: 5 phases of a cine, the header says 3 or 60."""
    made = [one for phase in range(5) for one in lines(data * (1 + phase), phase=phase)]
    _, images = reconstruct(header(limits={"phase": (0, limit, 0)}), made)
    assert [int(image.InstanceNumber) for image in images] == [1, 2, 3, 4, 5]
    assert brightness(images) == pytest.approx([1, 2, 3, 4, 5], rel=0.02)


def test_contrasts_of_different_numbers_of_lines(reconstruct, data):
    """MRIReco.jl#138"""
    made = [*lines(data), *lines(data * 0.5, sorted({*range(0, 64, 2), *range(20, 44)}), contrast=1)]
    _, images = reconstruct(header(limits={"contrast": (0, 1, 0)}), made)
    assert len(images) == 2
    assert all(map(is_right, images))
    assert brightness(images) == pytest.approx([1, 0.5], rel=0.05)


def test_contrast_changes_with_every_line(reconstruct, data):
    """MRIReco.jl#20: the second echo must not be the first half of the lines."""
    made = [line(data[:, y] * (1 - 0.4 * echo), y, contrast=echo) for y in range(64) for echo in range(2)]
    _, images = reconstruct(header(limits={"contrast": (0, 1, 0)}), made)
    assert all(map(is_right, images))
    assert brightness(images) == pytest.approx([1, 0.6], rel=0.02)


@pytest.mark.parametrize("counter", ["repetition", "phase", "set", "slice"])
def test_other_counter_changes_with_every_line(reconstruct, data, counter):
    """MRIReco.jl#20 of other counters"""
    made = [line(data[:, y] * (1 - 0.4 * n), y, **{counter: n}) for y in range(64) for n in range(2)]
    _, images = reconstruct(header(limits={counter: (0, 1, 0)}), made)
    assert len(images) == 2
    assert brightness(images) == pytest.approx([1, 0.6], rel=0.02)


def test_averages_and_repetitions_at_once(reconstruct, data):
    """remmi-matlab#1"""
    made = [
        one
        for repetition in range(2)
        for average in range(3)
        for one in lines(data * (1 + repetition), repetition=repetition, average=average)
    ]
    _, images = reconstruct(header(limits={"repetition": (0, 1, 0), "average": (0, 2, 0)}), made)
    assert len(images) == 2
    assert brightness(images) == pytest.approx([1, 2], rel=0.02)


def test_averages_of_different_lines(reconstruct, data):
    """fastMRI_prostate#8: the averages sample different lines; together they cover all."""
    made = [
        *lines(data, range(0, 64, 2)),
        *lines(data, range(1, 64, 2), average=1),
        *lines(data, range(0, 64, 2), average=2),
    ]
    _, images = reconstruct(header(limits={"average": (0, 2, 0)}), made)
    assert len(images) == 1
    assert is_right(images[0])


def test_shuffled_lines(reconstruct, data):
    """MRIReco.jl#215"""
    order = np.random.default_rng(0).permutation(64)
    _, (image,) = reconstruct(header(), [line(data[:, y], y) for y in order])
    assert is_right(image)


def test_user_counters_that_mean_nothing(reconstruct, data):
    """SIRF#1036"""
    made = lines(data)
    for number, one in enumerate(made):
        one.idx.user[:] = [(number * 977 + field) % 65536 for field in range(8)]
    _, images = reconstruct(header(), made)
    assert len(images) == 1
    assert is_right(images[0])


def test_segments_of_a_turbo_spin_echo(reconstruct, data):
    """siemens_to_ismrmrd#32: the echo train is in the segment counter."""
    made = [line(data[:, y], y, segment=y // 9) for y in range(64)]
    _, images = reconstruct(header(limits={"segment": (0, 7, 0)}), made)
    assert len(images) == 1
    assert is_right(images[0])


def test_lines_of_phase_oversampling_that_the_header_leaves_out(reconstruct):
    """siemens_to_ismrmrd#49: the converter wrote an oversampling of 0; the limits count the lines."""
    wide = kspace(samples=(128, 80), extent=(300, 187.5))
    result, (image,) = reconstruct(header(limits={"kspace_encoding_step_1": (0, 79, 40)}), lines(wide))
    assert is_right(image)
    assert any("oversampled" in text for text in result.warnings)


@pytest.mark.parametrize("centre", [32, 34])
def test_limits_a_little_beyond_the_encoded_matrix(reconstruct, centre):
    """mrpro#217: shots of 20 lines make 200 of a matrix of 188, no oversampling: no image rather than a wrong one."""
    more = kspace(samples=(128, 68))
    with pytest.raises(ReconError, match="correct matrixSize y, fieldOfView_mm y and the encoding limits"):
        reconstruct(header(limits={"kspace_encoding_step_1": (0, 67, centre)}), lines(more))


def test_lines_beyond_the_limits(reconstruct, data):
    """mrpro#217 without the limits that would tell."""
    _, (image,) = reconstruct(header(limits={"kspace_encoding_step_1": (8, 55, 32)}), lines(data))
    assert is_right(image)


def test_symmetric_lines_of_a_larger_matrix(reconstruct):
    """ismrmrd#131: 189 lines of 228, interpolated to 432: here 53 of 64, to 128."""
    few = kspace(samples=(128, 53))
    head = header(limits={"kspace_encoding_step_1": (0, 52, 26)}, recon=(64, 128, 1))
    _, (image,) = reconstruct(head, lines(few))
    assert is_right(image)


@pytest.mark.parametrize("first", [16, 24])
def test_partial_fourier_centre_that_the_header_gets_wrong(reconstruct, data, first):
    """MRIReco.jl#240, siemens_to_ismrmrd#142, #119, #133: the limits say half of the matrix, the lines do not."""
    made = [line(data[:, y], y - first) for y in range(first, 64)]
    head = header(limits={"kspace_encoding_step_1": (0, 63 - first, 32)})
    _, (image,) = reconstruct(head, made)
    assert is_right(image)


@pytest.mark.parametrize("half", ["lower", "upper"])
def test_partial_fourier_of_either_half(reconstruct, data, half):
    """siemens_to_ismrmrd#1, gadgetron#509, gadgetron#529"""
    steps = range(16, 64) if half == "lower" else range(48)
    first = steps[0]
    made = [line(data[:, y], y - first) for y in steps]
    _, (image,) = reconstruct(header(limits={"kspace_encoding_step_1": (0, 47, 32 - first)}), made)
    assert is_right(image)


def test_header_of_fewer_lines_than_the_full_image(reconstruct):
    """pulseq#202: acceleration skips the last line, and the header counts the lines up to the last one."""
    full = kspace(samples=(128, 64))
    steps = sorted({*range(0, 64, 3), *range(20, 44)})
    head = header(encoded=(128, steps[-1] + 1, 1), limits={"kspace_encoding_step_1": (0, steps[-1], 32)})
    _, (image,) = reconstruct(head, lines(full, steps))
    assert is_right(image)


def test_counters_that_the_exporter_did_not_set(reconstruct, data):
    """nexus-console#80: the header announces two contrasts, all lines say the first: told, not hidden."""
    result, images = reconstruct(header(limits={"contrast": (0, 1, 0)}), [*lines(data), *lines(data * 0.5)])
    assert len(images) == 1
    assert is_right(images[0])
    assert any("more than once" in text for text in result.warnings)


def test_no_limits_at_all(reconstruct, data):
    """MRIReco.jl#33: the converter wrote no encoding limits."""
    head = header().split("<encodingLimits>")
    head = head[0] + "<encodingLimits/>" + head[1].split("</encodingLimits>")[1]
    made = [one for repetition in range(2) for one in lines(data * (1 + repetition), repetition=repetition)]
    _, images = reconstruct(head, made)
    assert len(images) == 2
    assert all(map(is_right, images))
    assert brightness(images) == pytest.approx([1, 2], rel=0.02)


def test_slice_counter_not_in_the_order_of_space(reconstruct):
    """pulseq#118, SIRF#189: labels follow the order of acquisition; positions tell where a slice is."""
    places = [6.0, 0.0, -6.0, 12.0]
    made = [
        one
        for number, z in enumerate(places)
        for one in lines(kspace((0, 0, z)) * (1 + number / 4), slice=number, position=(0, 0, z))
    ]
    _, images = reconstruct(header(limits={"slice": (0, 3, 0)}), made)
    assert sorted(float(image.ImagePositionPatient[2]) for image in images) == [-6, 0, 6, 12]
    (middle,) = [image for image in images if image.ImagePositionPatient[2] == 0]
    assert is_right(middle)


def test_repetitions_of_one_slice_stay_where_they_are(reconstruct, data):
    """SIRF#960"""
    made = [one for repetition in range(3) for one in lines(data, repetition=repetition, position=(0, 0, 3))]
    _, images = reconstruct(header(limits={"repetition": (0, 2, 0)}), made)
    assert [float(image.ImagePositionPatient[2]) for image in images] == [3, 3, 3]


def test_slices_of_which_only_zeros_came(reconstruct, data):
    """ge_to_ismrmrd#10: the slices of later passes hold zeros: an empty image, and the others as they are."""
    made = [*lines(data), *lines(data * 0, slice=1, position=(0, 0, 6))]
    result, images = reconstruct(header(limits={"slice": (0, 1, 0)}), made)
    assert [bool(pixels(image).any()) for image in images] == [True, False]
    assert is_right(images[0])
    assert any("empty" in text for text in result.warnings)


@pytest.mark.parametrize("start", [65530, 2**32 - 5])
def test_scan_counter_wraps(reconstruct, data, start):
    """Own: Siemens counts scans in 32 bits; some exporters in 16."""
    modulus = 2**16 if start < 2**16 else 2**32
    made = lines(data)
    for number, one in enumerate(made):
        one.scan_counter = (start + number) % modulus
    _, (image,) = reconstruct(header(), made)
    assert is_right(image)


@pytest.mark.parametrize("limits", [(0, 63, 0), (0, 63, 32), None], ids=["centre 0", "centre 32", "none"])
def test_negative_counters_in_16_bits(reconstruct, data, limits):
    """Own: phase encodings -32..31 of a pulse sequence, written to unsigned fields."""
    head = header(limits={"kspace_encoding_step_1": limits} if limits else {})
    if not limits:
        head = head.replace(head[head.index("<encodingLimits>") : head.index("</encodingLimits>")], "<encodingLimits>")
    _, (image,) = reconstruct(head, [line(data[:, y], (y - 32) % 65536) for y in range(64)])
    assert is_right(image)


def test_counters_from_one(reconstruct, data):
    """ge_to_ismrmrd#26: counters that start at 1, limits that start at 0."""
    made = [line(data[:, y], y + 1, slice=1 + number) for number in range(2) for y in range(64)]
    _, images = reconstruct(header(limits={"slice": (0, 1, 0)}), made)
    assert len(images) == 2
    assert all(map(is_right, images))


def test_partition_counter_of_a_slice(reconstruct, data):
    """Own: a 2D scan whose lines say partition 5 of 1."""
    _, (image,) = reconstruct(header(), [line(data[:, y], y, kspace_encode_step_2=5) for y in range(64)])
    assert is_right(image)
