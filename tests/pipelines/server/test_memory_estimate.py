"""A scan that would need too much memory is refused before it takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.server.memory_estimate import FRAME_BYTES, ITEM_BYTES, MemoryEstimate
from pipelines.simulation import simulate
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    SCAN,
    error_of,
    exchanged,
    memory,
    named,
    serving,
    text,
    works,
)


def contrast_beyond_the_header(header: Any, lines: list[Any]) -> None:
    header.encoding[0].encodingLimits.contrast = None
    lines[20].idx.contrast = 65535


def contrasts_in_the_header(header: Any, _: list[Any]) -> None:
    header.encoding[0].encodingLimits.contrast = ismrmrd.xsd.limitType(minimum=0, maximum=65535, center=0)


def calibration_beyond_the_matrix(_: Any, lines: list[Any]) -> None:
    line = next(line for line in lines if line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION))
    line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2 = 65535, 60


def noise_of_many_coils(_: Any, lines: list[Any]) -> None:
    noise = ismrmrd.Acquisition.from_array(np.ones((16000, 2), np.complex64))
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    lines.insert(0, noise)


def field_of_view(millimetres: float) -> Callable[[Any, list[Any]], None]:
    def change(header: Any, _: list[Any]) -> None:
        header.encoding[0].reconSpace.fieldOfView_mm.y = millimetres

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (contrast_beyond_the_header, "GiB of memory, the limit is 1 GiB"),
        (contrasts_in_the_header, "GiB of memory, the limit is 1 GiB"),
        (calibration_beyond_the_matrix, "GiB of memory, the limit is 1 GiB"),
        (noise_of_many_coils, "GiB of memory, the limit is 1 GiB"),
        (field_of_view(1e-3), "GiB of memory, the limit is 1 GiB"),
        (field_of_view(5e-324), "out of all proportion"),
        (field_of_view(float("nan")), "is not a finite number"),
    ],
)
def test_no_memory_is_taken_for_what_header_or_lines_announce(
    change: Callable[[Any, list[Any]], None], match: str, raw: Path
) -> None:
    simulation = simulate(replace(SCAN, calibration="separate"))
    header, lines = simulation.header, list(simulation.acquisitions())
    change(header, lines)
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, ismrmrd.xsd.ToXML(header).encode())
    for line in lines:
        writers.write_acquisition(wire, line)
    with serving(limits=replace(LIMITS, memory_gib=1.0)) as server:
        before = memory(server)
        assert match in error_of(exchanged(server, wire.data + CLOSE))
        assert memory(server) - before < 300e6
        works(server, raw)


def test_buffers_that_pile_up_are_refused() -> None:
    simulation = simulate(replace(SCAN, matrix=(128, 128, 1)))
    line = next(simulation.acquisitions())
    memory = MemoryEstimate(simulation.header, 1.0, read_chain("cg_sense"))
    with pytest.raises(ReconError, match="GiB of memory, the limit is 1 GiB"):
        for phase in range(1000):  # each has a buffer of its own
            line.idx.phase = phase
            memory.add(line, 0)


@pytest.mark.slow
def test_lines_that_wait_for_their_image_count() -> None:
    simulation = simulate(replace(SCAN, matrix=(512, 32, 1), slices=2))
    chain, lines = read_chain("cg_sense"), list(simulation.acquisitions())
    memory = MemoryEstimate(simulation.header, 1.0, chain)
    each = lines[0].data.nbytes + ITEM_BYTES
    enough = 2**30 // each
    for number in range(3 * enough):  # an image now and then
        memory.add(lines[0], number // (enough // 2))
    with pytest.raises(ReconError, match=r"would need about 1 GiB of memory, the limit is 1 GiB; raise --memory"):
        for _ in range(enough):
            memory.add(lines[0], -1)


def needed(images: int, frames: str = "single", nifti: bool = False, output: str = "magnitude") -> int:
    """Estimate for a scan of 2D images, 256 x 256, of which so many were sent."""
    simulation = simulate(replace(SCAN, matrix=(256, 256, 1)))
    chain = read_chain("cg_sense")
    chain.set("dicom_output", "frames", frames)
    chain.set("generative_recon", "output", output)
    if nifti:
        node = chain.external("gadgets.dicom_output")
        assert node is not None
        chain.nodes.append(replace(node, module="gadgets.nifti_output", target="NiftiOutput", properties={}))
    memory = MemoryEstimate(simulation.header, 1e6, chain)
    line = next(one for one in simulation.acquisitions() if not one.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT))
    memory.add(line, images)
    return memory.needed


def test_images_of_files_that_hold_whole_series_count() -> None:
    """Measured (800 images of 256 x 256, 100 MiB of pixels): enhanced files took 326 MiB, NIfTI 274 MiB."""
    mib = 2**20
    assert needed(800) == needed(0)
    assert 326 * mib < needed(800, "enhanced") - needed(0) < 400 * mib
    assert 274 * mib < needed(800, nifti=True) - needed(0) < 800 * mib
    assert needed(1600, nifti=True, output="magnitude,complex") > needed(1600, nifti=True, output="magnitude,phase")
    # A file holds 256 MiB of pixels, or one volume.
    growth = needed(20000, "enhanced") - needed(10000, "enhanced")
    assert growth == 10000 * FRAME_BYTES
