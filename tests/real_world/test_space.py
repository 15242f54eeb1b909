"""Encoded spaces that do not describe the samples that come, as scanners and converters write them."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from gadgets.errors import ReconError
from tests.raw_files import MARKER, OBJECT, header, kspace, line, lines, marker, pixels
from tests.real_world.conftest import is_right


def test_encoded_space_without_the_oversampling(reconstruct, data):
    """neurocontainers#3206"""
    _, (image,) = reconstruct(header(encoded=(64, 64, 1), encoded_extent=(150, 150, 5)), lines(data))
    assert is_right(image)


def test_sixfold_oversampling(reconstruct):
    """gadgetron#1012"""
    wide = kspace(samples=(384, 64), extent=(900, 150))
    _, (image,) = reconstruct(header(encoded=(384, 64, 1), encoded_extent=(900, 150, 5)), lines(wide))
    assert image.Columns == 64
    assert is_right(image)


@pytest.mark.parametrize("encoded", [("238.933", "118.857", "0.99996"), (239, 119, 1)])
def test_encoded_matrix_of_another_scan(reconstruct, data, encoded):
    """philips_to_ismrmrd#4: a header of 448 x 156 x 35.9996, samples of 240 x 84 x 36: no wrong image."""
    head = header(encoded=encoded, encoded_extent=(300, 150, 5), recon=(119, 119, 1))
    with pytest.raises(ReconError, match=r"whole number|header and data disagree"):
        reconstruct(head, lines(data))


def test_two_partitions_of_a_slice(reconstruct, data):
    """mrpro#144, pulseq#34: the header says 2 partitions; the images must be one, not two equal ones."""
    _, images = reconstruct(header(encoded=(128, 64, 2), encoded_extent=(300, 150, 10)), lines(data))
    assert len(images) == 1
    assert is_right(images[0])


def test_reconstructed_matrix_twice_the_encoded_one(reconstruct, data):
    """mrpro#144"""
    _, (image,) = reconstruct(header(recon=(64, 128, 1)), lines(data))
    assert is_right(image)


@pytest.mark.parametrize("unit", [1e-3, 1e-6])
def test_field_of_view_in_metres(reconstruct, data, unit):
    """MRIReco.jl#33, #137: told; pixels of micrometres are not believed."""
    head = header(encoded_extent=(300 * unit, 150 * unit, 5 * unit), recon_extent=(150 * unit, 150 * unit, 5 * unit))
    result, (image,) = reconstruct(head, lines(data))
    assert any("field of view" in text for text in result.warnings)
    assert pixels(image).max() > 0


@pytest.mark.parametrize("samples", [127, 129])
def test_odd_number_of_samples(reconstruct, samples):
    """nexus-console#123: the exporter takes round(n / 2) for the centre."""
    odd = kspace(samples=(samples, 64))
    head = header(encoded=(samples, 64, 1))
    _, (image,) = reconstruct(head, lines(odd))
    assert is_right(image)


def test_centre_of_the_readout_left_at_zero(reconstruct, data):
    """gadgetron#870: the exporter wrote all samples, and no centre."""
    _, (image,) = reconstruct(header(), lines(data, center_sample=0))
    assert is_right(image)


def test_second_echo_of_fewer_samples(reconstruct, data):
    """philips-data-reader#3"""
    made = [*lines(data), *lines(data[:, :, 24:] * 0.5, contrast=1, center_sample=40)]
    _, images = reconstruct(header(limits={"contrast": (0, 1, 0)}), made)
    assert len(images) == 2
    assert all(map(is_right, images))


@pytest.mark.parametrize(("kept", "centre"), [(slice(42, 128), 22), (slice(0, 86), 64)])
def test_partial_echo(reconstruct, data, kept, centre):
    """gadgetron#490: centre 128 of samples 42..255; and the other side."""
    _, (image,) = reconstruct(header(), lines(data[:, :, kept], center_sample=centre))
    assert is_right(image)


def test_partial_echo_filled_with_zeros_and_discarded(reconstruct, data):
    """gadgetron#490: all 256 samples are there; discard_pre tells the 42 that are none."""
    filled = data.copy()
    filled[:, :, :21] = 1000.0
    _, (image,) = reconstruct(header(), lines(filled, discard_pre=21))
    assert is_right(image)


def test_fewer_lines_than_columns(reconstruct):
    """MRIReco.jl#143"""
    few = kspace(samples=(128, 40))
    head = header(encoded=(128, 40, 1), limits={"kspace_encoding_step_1": (0, 39, 20)})
    _, (image,) = reconstruct(head, lines(few))
    assert is_right(image)


@pytest.mark.parametrize("lines_count", [80, 96])
def test_phase_oversampling(reconstruct, lines_count):
    """retroMoCoBox#4, siemens_to_ismrmrd#49"""
    extent = 150 * lines_count / 64
    more = kspace(samples=(128, lines_count), extent=(300, extent))
    head = header(
        encoded=(128, lines_count, 1),
        encoded_extent=(300, extent, 5),
        limits={"kspace_encoding_step_1": (0, lines_count - 1, lines_count // 2)},
    )
    _, (image,) = reconstruct(head, lines(more))
    assert (image.Rows, image.Columns) == (64, 64)
    assert is_right(image)


def slab(lengths=8, extent=32.0, position=(0, 0, 0), chosen=None, **fields):
    """A 3D scan of 8 partitions or other; `chosen` tells which (phase, partition) are measured."""
    data = kspace(position, samples=(128, 64, lengths), extent=(300, 150, extent))
    return [
        line(data[:, z, y], y, kspace_encode_step_2=z, position=position, **fields)
        for z in range(lengths)
        for y in range(64)
        if chosen is None or chosen(y, z)
    ]


def slab_header(lengths=8, extent=32.0, recon=8, recon_extent=32.0, **others):
    return header(
        encoded=(128, 64, lengths),
        encoded_extent=(300, 150, extent),
        recon=(64, 64, recon),
        recon_extent=(150, 150, recon_extent),
        limits={"kspace_encoding_step_2": (0, lengths - 1, lengths // 2)},
        **others,
    )


def brightest(images):
    return max(images, key=lambda image: pixels(image).max())


def test_slab_off_the_centre(reconstruct):
    """retroMoCoBox#4: the partition of the marker lies at its patient position."""
    _, images = reconstruct(slab_header(), slab(position=(0, 0, 4)))
    assert len(images) == 8
    image = brightest(images)
    assert abs(float(image.ImagePositionPatient[2])) <= 2
    assert np.linalg.norm(marker(image)[:2] - (18, -11)) < 0.25


@pytest.mark.slow
def test_slab_oversampling(reconstruct):
    """retroMoCoBox#4: 12 partitions over 48 mm are measured, the 8 of the middle reconstructed."""
    _, images = reconstruct(slab_header(12, 48.0, 8, 32.0), slab(12, 48.0))
    assert len(images) == 8
    assert abs(float(brightest(images).ImagePositionPatient[2])) <= 2
    places = sorted(float(image.ImagePositionPatient[2]) for image in images)
    assert np.diff(places) == pytest.approx(4.0)


def test_corners_of_k_space_not_measured(reconstruct):
    """MRIReco.jl#215"""
    inside = slab(chosen=lambda y, z: np.hypot((y - 32) / 32, (z - 4) / 4) <= 1.15)
    _, images = reconstruct(slab_header(), inside)
    assert abs(float(brightest(images).ImagePositionPatient[2])) <= 2
    assert np.linalg.norm(marker(brightest(images))[:2] - (18, -11)) < 0.25


@pytest.mark.slow
def test_two_echoes_of_a_slab_with_partial_echo(reconstruct):
    """gadgetron#490"""
    made = []
    for one in slab():
        for echo in range(2):
            made.append(
                line(
                    one.data[:, 21:] * (1 - 0.5 * echo),
                    one.idx.kspace_encode_step_1,
                    kspace_encode_step_2=one.idx.kspace_encode_step_2,
                    contrast=echo,
                    center_sample=43,
                )
            )
    _, images = reconstruct(slab_header(), made)
    assert len(images) == 16
    for echo in (images[:8], images[8:]):
        assert np.linalg.norm(marker(brightest(echo))[:2] - (18, -11)) < 0.25


def test_field_of_view_of_the_slice_is_zero(reconstruct, data):
    """Exporters of 2D scans write 0 for z of the field of view: the image is made, and the fault told."""
    head = header(encoded_extent=(300, 150, 0), recon_extent=(150, 150, 0))
    result, (image,) = reconstruct(head, lines(data))
    assert is_right(image)
    assert any("fieldOfView_mm/z are missing or 0" in text for text in result.warnings)


def test_reference_lines_in_another_encoding_space(reconstruct, data):
    """gadgetron#483: each encoding has its own parallel imaging."""
    calibration = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
    small = kspace(samples=(64, 24), extent=(300, 150))
    parts = header().split("</encoding>")
    second = (
        "<encoding><trajectory>cartesian</trajectory><encodedSpace><matrixSize><x>64</x><y>24</y><z>1</z></matrixSize>"
        "<fieldOfView_mm><x>300</x><y>150</y><z>5</z></fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>32</x>"
        "<y>24</y><z>1</z></matrixSize><fieldOfView_mm><x>150</x><y>150</y><z>5</z></fieldOfView_mm></reconSpace>"
        "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>23</maximum><center>12</center>"
        "</kspace_encoding_step_1></encodingLimits></encoding>"
    )
    reference = [line(small[:, y] * 0.4, y, flags=[calibration], encoding_space_ref=1) for y in range(24)]
    _, images = reconstruct(parts[0] + "</encoding>" + second + parts[1], [*reference, *lines(data, range(0, 64, 2))])
    assert len(images) == 1
    assert is_right(images[0])


@pytest.mark.parametrize("vendor", ["SIEMENS", "Siemens Healthineers"])
def test_directions_of_siemens(reconstruct, vendor):
    """gadgetron#1003, mrpro#828, #833: k-space of the other sign, the marker at its patient position."""
    ball, mark = OBJECT
    mirrored = kspace(objects=(ball, (tuple(-value for value in MARKER), *mark[1:])))  # k-space at -k
    system = f"<acquisitionSystemInformation><systemVendor>{vendor}</systemVendor></acquisitionSystemInformation>"
    _, (image,) = reconstruct(header(after=system), lines(mirrored))
    assert is_right(image)
