"""Buffers of a real Gadgetron, which removes the oversampling that the header tells of."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.buffer_oversampling import without_oversampling
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from tests.raw_files import header, kspace, lines

BASE = header(encoded=(64, 64, 1), encoded_extent=(150, 150, 5))


def bits(head: Any, data: Any, *, cut: bool) -> list[Any]:
    """What reaches our gadgets, with the oversampling removed or not."""
    chain = read_chain("cg_sense")
    names = [node.names[0] for node in chain.nodes]
    chain.nodes = chain.nodes[: names.index("BucketToBufferGadget") + 1]
    chain.nodes = [node for node in chain.nodes if cut or node.names[0] != "RemoveROOversamplingGadget"]
    (item,) = chain.run(head, lines(data))
    return list(item.bits)


def test_readouts_that_were_not_cut_are_cut() -> None:
    head = ismrmrd.xsd.CreateFromDocument(BASE)
    (wanted,) = bits(head, kspace(), cut=True)
    (given,) = bits(head, kspace(), cut=False)
    assert given.data.data.shape[0] == 128
    found = without_oversampling(given, head.encoding[0])
    np.testing.assert_allclose(found.data.data, wanted.data.data, atol=1e-6 * abs(wanted.data.data).max())
    heads = {(one.number_of_samples, one.center_sample) for one in found.data.headers.flat}
    assert heads == {(64, 32)}
    assert without_oversampling(found, head.encoding[0]) is found


def test_readouts_that_lost_half_of_the_object_are_refused() -> None:
    head = ismrmrd.xsd.CreateFromDocument(header())
    (given,) = bits(ismrmrd.xsd.CreateFromDocument(header(encoded=(64, 64, 1))), kspace(samples=(64, 64)), cut=True)
    assert given.data.data.shape[0] == 32
    with pytest.raises(ReconError, match="an oversampling that the lines do not have was cut; correct encodedSpace"):
        without_oversampling(given, head.encoding[0])
