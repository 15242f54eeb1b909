"""The gadget that estimates coil maps: their axes, and which calibration they come from."""

from __future__ import annotations

import numpy as np
import pytest
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit

from gadgets.espirit import Espirit
from tests.gadgets.scans import buffered, run, two_spaces


@pytest.mark.parametrize("sets", [1, 2])
def test_maps_have_the_axes_of_the_data(sets):
    header, (item,) = buffered(matrix=(16, 24, 12), calibration_lines=8)
    run(header, [item], Espirit, map_sets=sets)
    assert item[0].coil_maps.shape == (16, 24, 12, 4, sets, 1, 1)
    assert item[0].calibration == "measured"


def test_repetitions_without_calibration_get_the_first_ones_maps():
    header, items = buffered(repetitions=2, calibration_repetitions="first")
    first, second = run(header, items, Espirit)
    assert second[0].coil_maps is first[0].coil_maps
    assert second[0].calibration == "earlier repetition"


def test_interleaved_calibration_waits_for_enough_repetitions():
    header, items = buffered(repetitions=3, calibration="interleaved")
    taken = []

    def source():
        for item in items:
            taken.append(item)
            yield item

    gadget = Espirit()
    gadget.configure(header, {})
    stream = gadget.process(source())
    assert next(stream) is items[0]
    assert len(taken) == 2
    assert items[0][0].calibration == "all repetitions"
    assert list(stream) == items[1:]


def test_external_process_keeps_maps_and_their_origin():
    from gadgets.stream.wire import for_wire, from_wire

    header, (item,) = buffered(calibration="none", sampling="random")
    run(header, [item], Espirit)
    maps, origin = item[0].coil_maps, item[0].calibration
    received = from_wire(ReconData([ReconBit(bit.data, bit.ref) for bit in for_wire(item)]))
    np.testing.assert_array_equal(received[0].coil_maps, maps)
    assert received[0].calibration == origin


def test_each_encoding_space_keeps_its_own_maps():
    header, items = two_spaces()
    first, second = run(header, items, Espirit)
    for space in (0, 1):
        assert second[space].coil_maps is first[space].coil_maps
        assert second[space].calibration == "earlier repetition"
