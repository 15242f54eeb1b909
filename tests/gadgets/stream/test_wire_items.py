"""Items that travel between processes: precision, text and coil maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import ismrmrd
import numpy as np
import pytest
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.espirit import Espirit
from gadgets.stream import Gadget
from pipelines.chain import read_chain
from pipelines.external_stages import external_process
from pipelines.raw import RawScan
from tests.gadgets.stream.gadgetron_side import CLOSE, configuration, in_process

# numpy warns when gadgetron-python makes an object array of ctypes headers.
pytestmark = pytest.mark.filterwarnings("ignore:.*PEP3118:RuntimeWarning:gadgetron.external.readers")


class Sends(Gadget):
    """Sends these items at the end of its input."""

    items: ClassVar[list[Any]] = []

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in items:
            pass
        yield from self.items


def sent_and_received(header: bytes, monkeypatch: pytest.MonkeyPatch, item: Any) -> Any:
    monkeypatch.setattr(Sends, "items", [item])
    with in_process(Sends()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.close()
        answers = gadgetron.answers()
    assert not raised
    assert len(answers) == 2 and answers[1] == (CLOSE, None), answers
    return answers[0][1]


def headers(*shape: int, kind: type = ismrmrd.AcquisitionHeader) -> Any:
    array = np.empty(shape, object)
    for place in np.ndindex(*shape):
        array[place] = kind()
    return array


def recon_buffer(kspace: Any, trajectory: Any = None, density: Any = None) -> ReconBuffer:
    _, e1, e2, _, *rest = kspace.shape
    sampling = SamplingDescription()
    sampling.encoded_matrix[:] = (kspace.shape[0], e1, e2)
    return ReconBuffer(kspace, trajectory, density, headers(e1, e2, *rest), sampling)


def random_complex(*shape: int) -> Any:
    generator = np.random.default_rng(0)
    return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)


def test_recon_data_of_other_precision_is_sent(header: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kspace = random_complex(8, 6, 1, 3, 1, 1, 1)
    trajectory, density = np.arange(2 * 8 * 6.0).reshape(2, 8, 6, 1, 1, 1), np.ones((8, 6, 1, 1, 1), np.int64)
    bit = ReconBit(recon_buffer(kspace, trajectory, density), recon_buffer(kspace[:, :2].real))
    got = sent_and_received(header, monkeypatch, ReconData([bit])).bits[0]
    for array, expected, kind in (
        (got.data.data, kspace, np.complex64),
        (got.data.trajectory, trajectory, np.float32),
        (got.data.density, density, np.float32),
        (got.ref.data, kspace[:, :2].real, np.complex64),
    ):
        assert array.dtype == kind
        np.testing.assert_allclose(array, expected, rtol=1e-6)
        assert array.flags.writeable
    assert list(got.data.sampling.encoded_matrix) == [8, 6, 1]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.complex128, np.complex64])
def test_image_array_of_any_type_and_text_is_sent(
    header: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic]
) -> None:
    pixels = (100 * random_complex(8, 6, 1, 1, 2, 1, 1).real).astype(kind)
    meta = [str(ismrmrd.Meta({"comment": f"Prüfkörper β {n}", "number": str(n)}).serialize()) for n in range(2)]
    array = ImageArray(pixels, headers(2, 1, 1, kind=ismrmrd.ImageHeader), meta, None, None)
    got = sent_and_received(header, monkeypatch, array)
    assert got.data.dtype == np.complex64
    np.testing.assert_allclose(got.data, pixels, rtol=1e-6)
    for n, text in enumerate(got.meta):
        assert ismrmrd.Meta.deserialize(text)["comment"] == f"Prüfkörper β {n}"


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.complex64])
def test_image_with_text_is_sent(header: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic]) -> None:
    image = ismrmrd.Image.from_array(np.arange(12).reshape(1, 1, 3, 4).astype(kind))
    image.attribute_string = ismrmrd.Meta({"comment": "Prüfkörper β"}).serialize()
    got = sent_and_received(header, monkeypatch, image)
    np.testing.assert_array_equal(got.data, image.data)
    assert ismrmrd.Meta.deserialize(got.attribute_string)["comment"] == "Prüfkörper β"


class DoublesMaps(Gadget):
    """Changes the coil maps it receives, in place."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            for bit in item.bits:
                if hasattr(bit, "coil_maps"):
                    bit.coil_maps *= 2
            yield item


def test_coil_maps_make_the_round_trip(header: bytes) -> None:
    bits = [ReconBit(recon_buffer(random_complex(8, 6, 1, 3, 1, 1, 1).astype(np.complex64))) for _ in range(3)]
    bits[0].coil_maps, bits[0].calibration = random_complex(8, 6, 1, 3, 2, 1, 1), "earlier repetition"
    bits[2].coil_maps, bits[2].calibration = random_complex(8, 6, 1, 3, 1, 1, 1), "completed"
    bits[2].ref = recon_buffer(random_complex(8, 2, 1, 3, 1, 1, 1))
    with in_process(DoublesMaps()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.send(ReconData(bits))
        gadgetron.close()
        (_, got), (last, _) = gadgetron.answers()
    assert last == CLOSE and not raised
    assert [hasattr(bit, "coil_maps") for bit in got.bits] == [True, False, True]
    for place in (0, 2):
        np.testing.assert_allclose(got.bits[place].coil_maps, 2 * bits[place].coil_maps, rtol=1e-6)
        assert got.bits[place].calibration == bits[place].calibration
    for received, sent in zip(got.bits, bits, strict=True):
        np.testing.assert_array_equal(received.data.data, sent.data.data)
    np.testing.assert_allclose(got.bits[2].ref.data, bits[2].ref.data, rtol=1e-6)


def buffered(raw: Path) -> tuple[Any, list[ReconData]]:
    """The scan's header and its ReconData, as the first gadgets of a chain make them."""
    with RawScan(raw) as scan:
        chain = read_chain("cg_sense")
        del chain.nodes[[node.names[0] for node in chain.nodes].index("reconstruction") :]
        return scan.header, list(chain.run(scan.header, scan.acquisitions()))


@pytest.mark.slow
def test_espirit_in_a_process_sends_its_maps(raw: Path, header: bytes) -> None:
    scan_header, data = buffered(raw)
    assert len(data) == 2
    stage = external_process("gadgets.espirit", "Espirit", configuration(map_sets=2), header)
    across = list(stage(iter(data)))
    gadget = Espirit()
    gadget.configure(scan_header, {"map_sets": "2"})
    for got, expected in zip(across, gadget.process(iter(data)), strict=True):
        assert got.bits[0].coil_maps.shape == (32, 32, 1, 4, 2, 1, 1)
        assert got.bits[0].calibration == "measured"
        np.testing.assert_allclose(got.bits[0].coil_maps, expected.bits[0].coil_maps, atol=1e-5)
        np.testing.assert_array_equal(got.bits[0].data.data, expected.bits[0].data.data)
