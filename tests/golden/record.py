"""Record what a real Gadgetron makes of the cases, for tests/gadgets/test_twins.py; to be run when a case is new.

    python tests/golden/record.py localhost:9002 [FILE ...]

The project must be importable (installed, or on PYTHONPATH). The server needs no Python of its own: items go to its
C++ gadgets over its own readers and come back over its own writers. FILE limits it to some golden files (noise,
readout, buckets, buffers, field_of_view, images). Recorded with Gadgetron 4.7.2.
"""

from __future__ import annotations

import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
from cases import GOLDEN, Case, as_arrays, cases
from gadgetron.external import constants, readers
from gadgetron.types import image_array
from gadgetron.types.acquisition_bucket import read_acquisition_bucket
from gadgetron.types.recon_data import read_recon_data

from gadgets.stream import ReconError
from pipelines import wire

# gadgetron-python reads the meta of image arrays as ASCII; the server writes UTF-8.
image_array.read_meta_container = lambda source: readers.read_byte_string(source, constants.uint64).decode()

READERS = ("AcquisitionReader", "WaveformReader", "ImageReader", "BufferReader", "IsmrmrdImageArrayReader")
WRITERS = (
    "AcquisitionWriter",
    "WaveformWriter",
    "ImageWriter",
    "BufferWriter",
    "IsmrmrdImageArrayWriter",
    "AcquisitionBucketWriter",
)
MESSAGES = {
    constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION: readers.read_acquisition,
    constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM: readers.read_waveform,
    constants.GADGET_MESSAGE_ISMRMRD_IMAGE: readers.read_image,
    constants.GADGET_MESSAGE_IMAGE_ARRAY: image_array.read_image_array,
    constants.GADGET_MESSAGE_RECON_DATA: read_recon_data,
    constants.GADGET_MESSAGE_BUCKET: read_acquisition_bucket,
    constants.GADGET_MESSAGE_TEXT: lambda source: source.read(*struct.unpack("<I", source.read(4))).decode(),
}
TIMEOUT_S = 30.0


def chain(case: Case) -> bytes:
    """The case's gadgets as a Gadgetron chain that reads and writes every kind of item."""
    root = ElementTree.Element("configuration")
    ElementTree.SubElement(root, "version").text = "2"
    for group, entry, dll, names in (
        ("readers", "reader", "gadgetron_core_readers", READERS),
        ("writers", "writer", "gadgetron_core_writers", WRITERS),
        ("stream", "gadget", "gadgetron_mricore", [name for name, _ in case.gadgets]),
    ):
        parent = ElementTree.SubElement(root, group)
        for name in names:
            element = ElementTree.SubElement(parent, entry)
            ElementTree.SubElement(element, "dll").text = dll
            ElementTree.SubElement(element, "classname").text = name
    for element, (_, properties) in zip(root.iter("gadget"), case.gadgets, strict=True):
        for name, value in properties.items():
            ElementTree.SubElement(element, "property", name=name, value=value)
    return ElementTree.tostring(root)


def received(mrd: wire.MrdSocket) -> Iterator[Any]:
    """Items up to CLOSE, buckets among them, which `pipelines.wire` does not need to read."""
    while (message := constants.GadgetMessageIdentifier.unpack(mrd.read(2))[0]) != constants.GADGET_MESSAGE_CLOSE:
        yield MESSAGES[message](mrd)


def run_on_server(address: str, case: Case) -> list[Any]:
    """What the server sends back. Raises RuntimeError with its text when a gadget fails."""
    host, port = wire.parse_address(address)
    items: list[Any] = []
    texts: list[str] = []
    with wire.connect_to(host, port, TIMEOUT_S) as sock:
        mrd = wire.MrdSocket(sock, address)

        def send() -> None:
            mrd.send_text(constants.GADGET_MESSAGE_CONFIG, chain(case))
            mrd.send_text(constants.GADGET_MESSAGE_HEADER, case.header.toXML().encode())
            mrd.send_all(case.items)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for item in received(mrd):
            (texts if isinstance(item, str) else items).append(item)
        sender.join(TIMEOUT_S)
    if texts:
        raise RuntimeError(" ".join(" ".join(texts).split()))
    return items


def main() -> None:
    """Record the golden files named on the command line, or all."""
    address, *chosen = sys.argv[1:]
    files: dict[str, dict[str, np.ndarray[Any, Any]]] = defaultdict(dict)
    for case in cases():
        if chosen and case.file not in chosen:
            continue
        try:
            arrays = as_arrays(run_on_server(address, case))
        except (RuntimeError, ReconError) as error:
            arrays = {"error": np.array(str(error))}
            print(f"{case.file}/{case.name}: {error}")
        files[case.file].update({f"{case.name}/{name}": array for name, array in arrays.items()})
    for name, arrays in files.items():
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
        print(f"{name}.npz: {(GOLDEN / f'{name}.npz').stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
