"""The base class of all gadgets."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gadgetron.external import constants

from gadgets.errors import ReconError, one_line
from gadgets.stream.digest import CHAIN_DIGEST, SCAN_DIGEST, BufferDigest, Settings, settings_digest, with_digests
from gadgets.stream.parameters import NoParameters, connection_properties, image_parameters, read_parameters
from gadgets.stream.source import SocketSource
from gadgets.stream.stages import Stage
from gadgets.stream.wire import for_wire

log = logging.getLogger("genrecon")

ERROR_MESSAGE = struct.Struct("<HQ")  # message id, length of the text in bytes


class Gadget:
    """An object that reads items from a stream and yields items, over a queue or a socket alike.

    Subclasses set `Parameters` (a frozen dataclass built with `parameter`) and write `process`. Items a gadget does
    not handle are yielded on unchanged. The same class serves the in-process chain, `python -m gadgetron PORT MODULE
    CLASS` and a listener that Gadgetron's `<connect>` reaches.
    """

    Parameters: ClassVar[type] = NoParameters
    makes_images: ClassVar[bool] = False  # if so, its image arrays carry digests of settings and data over the wire
    parameters: Any
    header: Any
    survey: Any = None  # gadgets.survey.Survey of the scan where its acquisition headers are known beforehand

    def __init__(self) -> None:
        self.name = type(self).__name__

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take the ISMRMRD header and the text properties of the chain. Raises ReconError for a bad property."""
        self.header = header
        self.parameters = read_parameters(self.Parameters, properties, self.name)

    @classmethod
    def image_settings(cls, properties: Mapping[str, str]) -> Settings:
        """The gadget's settings that may change images, defaults included. Raises ReconError for a bad property."""
        return [(cls.__name__, image_parameters(read_parameters(cls.Parameters, properties, cls.__name__)))]

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        """Read items, yield items."""
        raise NotImplementedError

    def stages(self, name: str) -> list[tuple[str, Stage]]:
        """The stages that `run_stages` runs for this gadget, named `name` in a chain; a composite has several."""
        return [(name, self.process)]

    def handle(self, connection: Any) -> None:
        """Serve one scan over a `gadgetron.external.Connection`.

        An error is answered in the only way that a real server survives: read the input to its CLOSE, send ERROR with
        one line of text, then CLOSE (the caller does, when it closes the connection).
        """
        source = SocketSource(connection)
        try:
            properties = connection_properties(connection.config)
            self.configure(connection.header, properties)
            digest = settings_digest(self.image_settings(properties)) if self.makes_images else ""
            buffers = BufferDigest()
            for item in self.process(buffers.watch(iter(source)) if digest else iter(source)):
                if digest:
                    item = with_digests(item, {CHAIN_DIGEST: digest, SCAN_DIGEST: buffers.text})
                connection.send(for_wire(item))
            source.drain()  # unread input would reset the connection
        except Exception as error:
            message = f"{self.name}: {one_line(error)}" if not isinstance(error, ReconError) else one_line(error)
            log.error(message, exc_info=not isinstance(error, ReconError))
            if source.drain():
                encoded = message.encode(errors="replace")
                connection.socket.write(ERROR_MESSAGE.pack(constants.GADGET_MESSAGE_ERROR, len(encoded)) + encoded)
        finally:
            source.stop()
