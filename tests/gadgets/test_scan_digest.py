"""What tells scans with equal headers apart."""

from __future__ import annotations

from collections.abc import Iterator

import ismrmrd
import numpy as np
import pytest
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets.dicom.attributes import scan_of
from gadgets.scan_digest import ScanDigest, line_digest
from gadgets.stream.digest import BufferDigest
from tests import raw_files
from tests.gadgets.dicom.dicom_images import make_image

LINE = raw_files.noise()


def digest_of(*lines: ismrmrd.Acquisition) -> str:
    digest = ScanDigest()
    assert len(list(digest.watch(lines))) == len(lines)
    return digest.text


def test_the_first_imaging_line_tells_scans_apart() -> None:
    first, later = raw_files.line(LINE, 0), raw_files.line(LINE, 1)
    own = digest_of(first, later)
    assert own == digest_of(raw_files.line(LINE, 0), raw_files.line(-LINE, 1)) and len(own) == 32
    for other in (
        raw_files.line(raw_files.noise(seed=1), 0),
        raw_files.line(LINE, 0, position=(0, 0, 1)),
        raw_files.line(LINE, 0, acquisition_time_stamp=1),
        raw_files.line(LINE, 0, measurement_uid=1),
    ):
        assert digest_of(other, later) != own


@pytest.mark.parametrize(
    "shared",
    [
        raw_files.line(raw_files.noise(seed=2), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT]),
        raw_files.line(raw_files.noise(seed=2), 0, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]),
        raw_files.line(raw_files.noise(seed=2), 0, flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA]),
        raw_files.line(np.zeros_like(LINE), 0),
        ismrmrd.Waveform(),
    ],
)
def test_lines_that_several_scans_may_have_do_not_count(shared: object) -> None:
    assert digest_of(shared, raw_files.line(LINE, 0)) == line_digest(raw_files.line(LINE, 0))


def test_images_get_the_digest_beside_what_they_have() -> None:
    digest = ScanDigest()
    list(digest.watch([raw_files.line(LINE, 0)]))
    image = make_image(meta={"GADGETRON_ImageComment": "Käse"})
    assert list(digest.mark(iter([image, "text"]))) == [image, "text"]
    assert scan_of(image) == digest.text
    assert image.meta["GADGETRON_ImageComment"] == "Käse"


@pytest.mark.parametrize("comes", [True, False])
def test_images_of_empty_lines_wait_for_it(comes: bool) -> None:
    digest = ScanDigest()
    seen: list[object] = []

    def items() -> Iterator[object]:
        yield "text"
        assert seen == ["text"]
        yield images[0]
        assert seen == ["text"]
        if comes:
            list(digest.watch([raw_files.line(LINE, 0)]))
        yield images[1]

    images = [make_image(), make_image(slice=1)]
    for item in digest.mark(items()):
        seen.append(item)
    assert seen == ["text", *images]
    assert [scan_of(image) for image in images] == [digest.text] * 2 and bool(digest.text) == comes


def buffers(data: np.ndarray) -> ReconData:
    """ReconData of a slice (coil, phase, read)."""
    heads = np.empty((data.shape[1], 1, 1, 1, 1), dtype=object)
    for step in range(data.shape[1]):
        heads[step, 0, 0, 0, 0] = raw_files.line(data[:, step], step).getHead()
    return ReconData([ReconBit(ReconBuffer(data.T[:, :, None, :, None, None, None], None, None, heads, None), None)])


def test_buffers_stand_in_where_a_process_sees_no_lines() -> None:
    def of(*items: ReconData) -> str:
        digest = BufferDigest()
        list(digest.watch(iter(items)))
        return digest.text

    data = raw_files.noise((4, 16, 32))
    own = of(buffers(np.zeros_like(data)), buffers(data), buffers(-2 * data))
    assert own == of(buffers(data)) == of(buffers((1 + 1e-7j) * data)) and len(own) == 32
    assert own != of(buffers(raw_files.noise((4, 16, 32), seed=1)))


def test_lines_for_image_and_calibration_are_imaging_lines() -> None:
    both = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING]
    assert digest_of(raw_files.line(LINE, 0, flags=both)) == digest_of(raw_files.line(LINE, 0)) != ""
