"""Coil compression, ESPIRiT and reconstruction in one process: torch is imported once, nothing is serialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.stream import Gadget, ReconError, Stage, run_stages


class Reconstruction(Gadget):
    """Runs its members one after another, one thread each; property `member.name` is property `name` of a member."""

    members: ClassVar[dict[str, type[Gadget]]] = {
        "coil_compression": CoilCompression,
        "espirit": Espirit,
        "generative_recon": GenerativeRecon,
    }

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Give each member its properties. Raises ReconError for a member or property that does not exist."""
        self.header = header
        of_member: dict[str, dict[str, str]] = {name: {} for name in self.members}
        for name, value in properties.items():
            member, _, own_name = name.partition(".")
            if member not in of_member or not own_name:
                known = ", ".join(f"{member}.…" for member in self.members)
                raise ReconError(f"gadget {self.name}: unknown property '{name}'; its properties are called {known}")
            of_member[member][own_name] = value
        self._gadgets = {name: kind() for name, kind in self.members.items()}
        for name, gadget in self._gadgets.items():
            gadget.configure(header, of_member[name])

    def stages(self, name: str) -> list[tuple[str, Stage]]:
        """Its members' stages, by their own names."""
        return [stage for member, gadget in self._gadgets.items() for stage in gadget.stages(member)]

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        return run_stages(items, self.stages(self.name))
