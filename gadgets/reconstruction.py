"""Coil compression, ESPIRiT and reconstruction in one process: torch is loaded once, nothing is serialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.stream import Gadget, ReconError, Stage, run_stages
from gadgets.stream.digest import Settings


class Reconstruction(Gadget):
    """Runs its members one after another, one thread each; property `member.name` is property `name` of a member."""

    members: ClassVar[dict[str, type[Gadget]]] = {
        "coil_compression": CoilCompression,
        "espirit": Espirit,
        "generative_recon": GenerativeRecon,
    }

    makes_images = True

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Give each member its properties. Raises ReconError for a member or property that does not exist."""
        self.header = header
        of_member = self._of_members(properties)
        self._gadgets = {name: kind() for name, kind in self.members.items()}
        for name, gadget in self._gadgets.items():
            gadget.survey = self.survey
            gadget.configure(header, of_member[name])

    @classmethod
    def image_settings(cls, properties: Mapping[str, str]) -> Settings:
        """Its members' settings: those of a chain that has them as gadgets of their own."""
        of_member = cls._of_members(properties)
        return [entry for name, kind in cls.members.items() for entry in kind.image_settings(of_member[name])]

    @classmethod
    def _of_members(cls, properties: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """The properties of each member, by its name."""
        of_member: dict[str, dict[str, str]] = {name: {} for name in cls.members}
        for name, value in properties.items():
            member, _, own_name = name.partition(".")
            if member not in of_member or not own_name:
                known = ", ".join(f"{member}.…" for member in cls.members)
                raise ReconError(f"gadget {cls.__name__}: unknown property '{name}'; its properties are called {known}")
            of_member[member][own_name] = value
        return of_member

    def stages(self, name: str) -> list[tuple[str, Stage]]:
        """Its members' stages, by their own names."""
        return [stage for member, gadget in self._gadgets.items() for stage in gadget.stages(member)]

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        return run_stages(items, self.stages(self.name))
