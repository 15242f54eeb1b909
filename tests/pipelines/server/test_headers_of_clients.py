"""Headers of older writers, and encodings of navigators, as clients of a server send them."""

from __future__ import annotations

from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from pipelines.replay import read_images, replay
from pipelines.send import send
from pipelines.server.listener import Server
from tests.pipelines.raw.streams import header_message, write_items
from tests.pipelines.server.serving import address, ended_well, exchanged, named
from tests.raw_files import encoding, header, kspace, line, lines, write

SPACES = (("encodedSpace", (256, 1, 1), (1e6, 1e-6, 0)), ("reconSpace", (3, 128, 1), (1e-9, 400, 8)))
TEXT = (
    header(trajectory=None, patient_position=None)
    .replace("<encoding>", encoding(SPACES, {}, "radial") + "<encoding>")
    .replace("</encoding>", "<future>1</future></encoding>")
)


def scan() -> list[ismrmrd.Acquisition]:
    data = kspace()
    navigators = [line(data[:, 32], 0, flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA]) for _ in range(3)]
    return [*navigators, *lines(data, encoding_space_ref=1)]


def test_another_client_s_header_is_completed(server: Server, tmp_path: Path) -> None:
    path = write_items(tmp_path / "stream", named("cg_sense") + header_message(TEXT), scan())
    found = exchanged(server, path.read_bytes())
    assert ended_well(found)
    assert b"header: encoding 1/trajectory is missing; cartesian is assumed" in found


@pytest.mark.slow
def test_images_are_those_of_a_replay_and_of_processes(server: Server, tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", (TEXT, scan()))
    replay(path, "cg_sense", tmp_path / "replay")
    replay(path, "cg_sense", tmp_path / "processes", processes=True)
    result = send(path, "cg_sense", address(server), out=tmp_path / "sent", timeout=60)
    assert result.images == 1 and any("trajectory is missing" in text for text in result.warnings)
    images = [next(read_images(tmp_path / name, 2)).data for name in ("replay", "processes", "sent")]
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])
