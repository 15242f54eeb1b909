"""Gadgets of all kinds of conduct, run as `python -m gadgetron PORT socket_gadgets NAME` by the tests beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gadgets.stream import Gadget, ReconError, parameter


class Echo(Gadget):
    """Sends back what it gets."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        yield from items


class Sleepy(Gadget):
    """Computes for a long time at its first item, and again after its last one."""

    @dataclass(frozen=True)
    class Parameters:
        first: float = parameter(30.0, "seconds at the first item")
        last: float = parameter(30.0, "seconds after the last item")

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for number, item in enumerate(items):
            if not number:
                yield item
                time.sleep(self.parameters.first)
        time.sleep(self.parameters.last)


class Failing(Gadget):
    """Sends back some items, computes a little, then fails."""

    @dataclass(frozen=True)
    class Parameters:
        after: int = parameter(2, "items read before it fails", minimum=0)
        seconds: float = parameter(0.0, "how long it computes before it fails")
        kind: str = parameter("ReconError", "what it raises", choices=("ReconError", "ValueError"))

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in range(self.parameters.after):
            yield next(items)
        time.sleep(self.parameters.seconds)
        raise {"ReconError": ReconError, "ValueError": ValueError}[self.parameters.kind]("Größe: it\n does not fit")


class Early(Gadget):
    """Sends back its first item and reads no further."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        yield next(items)


def returns_early(connection: Any) -> None:
    """A gadget that is none of ours: reads one item and returns."""
    connection.send(next(connection)[1])


def raises(connection: Any) -> None:
    """A gadget that is none of ours: raises after its last item."""
    for item in connection:
        connection.send(item)
    raise ValueError("not ours")
