"""Gadgetron's XML chains, read and run in process."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from gadgets.errors import did_you_mean
from gadgets.image_lines import ImageLines
from gadgets.noise.scan import ChosenNoise
from gadgets.readouts import WholeReadouts
from gadgets.reference_scan import ChosenReference, ReferenceScan
from gadgets.scan_digest import ScanDigest
from gadgets.stream import Gadget, ReconError, Stage, StageTiming, one_line, run_stages
from gadgets.stream.digest import settings_digest
from gadgets.stream.queues import QUEUE_MIB
from gadgets.survey import Survey
from gadgets.twins import BucketToBufferGadget, NoiseAdjustGadget
from pipelines.chain_nodes import Node, node_of
from pipelines.external_stages import external_connection, external_process

log = logging.getLogger("genrecon")

NOISE_GADGET = NoiseAdjustGadget.__name__
BUFFER_GADGET = BucketToBufferGadget.__name__
LINES_MODULE = "gadgets.image_lines"
CHAIN_PROPERTY = "chain_digest"  # of gadgets that want to know the chain they are in
INSTALLED_PREFIX = "genrecon_"  # that shipped chains have before their names in a Gadgetron installation


class Chain:
    """A Gadgetron stream configuration, both dialects.

    Parameters
    ----------
    text : bytes or str
        The XML.
    name : str
        Name of the chain in messages.

    Attributes
    ----------
    noise : ChosenNoise, optional
        Noise that the scan is prewhitened with; None: not known, or none.
    reference : ChosenReference, optional
        Reference scan whose calibration is used where the scan has none; None: there is none.
    keep_reference : callable, optional
        Called with the calibration of the scan, for later scans; None: it is not kept.

    Raises
    ------
    ReconError
        Not XML, not a stream configuration, or an element that only a real Gadgetron can run.
    """

    def __init__(self, text: bytes | str, name: str) -> None:
        self.name = name
        self.noise: ChosenNoise | None = None
        self.reference: ChosenReference | None = None
        self.keep_reference: Callable[[ReferenceScan], None] | None = None
        try:
            self._root = defusedxml.ElementTree.fromstring(text)
        except (defusedxml.ElementTree.ParseError, DefusedXmlException, ValueError, LookupError) as error:
            raise ReconError(f"{name}: not an XML chain ({one_line(error)}); see xml_configs for examples") from None
        for element in self._root.iter():
            if isinstance(element.tag, str):
                element.tag = element.tag.rpartition("}")[2]
        if self._root.tag == "gadgetronStreamConfiguration":
            elements = self._root.findall("gadget")
        elif self._root.tag == "configuration" and (self._root.findtext("version") or "").strip() == "2":
            stream = self._root.find("stream")
            if stream is None:
                raise ReconError(f"{name}: it has no <stream>; put the gadgets in one")
            elements = [element for element in stream if isinstance(element.tag, str)]
        else:
            raise ReconError(
                f"{name}: not a Gadgetron chain; its root must be <configuration> with <version>2</version> or "
                "<gadgetronStreamConfiguration>"
            )
        self.nodes = [node_of(element, name) for element in elements]
        if not self.nodes:
            raise ReconError(f"{name}: it has no gadgets; add them to the stream")
        self._resolve_references()

    def _resolve_references(self) -> None:
        """Replace values property@gadget by the value of that gadget's property, as Gadgetron does."""
        known = {
            f"{name}@{label}": (node, name) for node in self.nodes for label in node.names for name in node.properties
        }
        for node in self.nodes:
            for name, value in node.properties.items():
                visited: set[str] = set()
                same = [(node, name)]  # properties that have the value found at the end
                while value in known and value not in visited:
                    visited.add(value)
                    source, property_name = known[value]
                    same.append((source, property_name))
                    value = source.properties[property_name]
                if value in visited:
                    raise ReconError(
                        f"{self.name}: property '{name}' of {node.names[0]} refers to itself; give a value"
                    )
                for owner, own_name in same:
                    owner.properties[own_name] = value

    def set(self, gadget: str, name: str, value: str) -> None:
        """Set one property, of a gadget called by class, name or module, or of a member of a composite gadget.

        Raises ReconError when no gadget of the chain is called so.
        """
        targets = [node for node in self.nodes if gadget in node.names]
        members = [node for node in self.nodes if gadget in self._members(node)] if not targets else []
        if not targets and not members:
            known = [node.names[0] for node in self.nodes] + [m for node in self.nodes for m in self._members(node)]
            near = did_you_mean(gadget, known)
            raise ReconError(f"{self.name}: no gadget is called '{gadget}'{near} it has: {', '.join(known)}")
        for node in targets:
            node.properties[name] = value
        for node in members:
            node.properties[f"{gadget}.{name}"] = value

    def kinds(self, gadget: str) -> list[type[Gadget] | None]:
        """Classes of the gadgets that `set` finds by a name; None for those that are not ours."""
        nodes = [node.load() for node in self.nodes if gadget in node.names]
        return nodes or [node.load().members[gadget] for node in self.nodes if gadget in self._members(node)]  # type: ignore[union-attr]

    @staticmethod
    def _members(node: Node) -> tuple[str, ...]:
        if not node.module.startswith("gadgets."):
            return ()
        return tuple(getattr(node.load(), "members", {}))

    def without(self, module: str) -> Chain:
        """The chain less the external nodes of one module."""
        other = copy.deepcopy(self)
        stream = other._root.find("stream")
        for node in [node for node in other.nodes if node.module == module]:
            (other._root if stream is None else stream).remove(node.element)
            other.nodes.remove(node)
        return other

    def up_to_buffers(self) -> Chain | None:
        """The chain up to the gadget that sorts lines into buffers; None without one."""
        names = [node.classname for node in self.nodes]
        if BUFFER_GADGET not in names:
            return None
        other = copy.copy(self)
        other.nodes = self.nodes[: names.index(BUFFER_GADGET) + 1]
        return other

    def external(self, module: str) -> Node | None:
        """The first external node of one module."""
        return next((node for node in self.nodes if node.module == module), None)

    @property
    def prewhitens(self) -> bool:
        """Whether it has a gadget that prewhitens with a noise scan."""
        return any(
            node.classname == NOISE_GADGET and node.properties.get("perform_noise_adjust", "true").lower() != "false"
            for node in self.nodes
        )

    def noise_properties(self, node: Node) -> dict[str, str]:
        """Properties of a gadget that tell it which noise and reference the scan has, where the chain does not."""
        texts: dict[str, str] = {}
        if self.noise is not None and self.prewhitens:
            texts |= {"noise": self.noise.text, "noise_name": self.noise.name}
        if self.reference is not None:
            texts |= {"reference": self.reference.text, "reference_name": self.reference.name}
        if not texts:
            return {}
        kind = node.load() if node.module.startswith("gadgets.") else None
        found = {"": kind} if kind is not None else {}
        found |= {f"{name}.": member for name, member in getattr(kind, "members", {}).items()}
        return {
            f"{prefix}{entry.name}": texts[entry.name]
            for prefix, owner in found.items()
            for entry in fields(owner.Parameters)
            if entry.name in texts and f"{prefix}{entry.name}" not in node.properties
        }

    def to_xml(self) -> bytes:
        """The chain as XML, properties as they are now; legacy property elements are kept in their dialect."""
        for node in self.nodes:
            holder = node.element
            if node.element.tag == "external":
                found = node.element.find("configuration")
                holder = ElementTree.SubElement(node.element, "configuration") if found is None else found
            legacy = self._root.tag == "gadgetronStreamConfiguration"
            reserved = {"python_module": node.module, "python_class": node.target} if legacy and node.module else {}
            for old in holder.findall("property"):
                holder.remove(old)
            for name, value in {**reserved, **node.properties}.items():
                if legacy:
                    element = ElementTree.SubElement(holder, "property")
                    ElementTree.SubElement(element, "name").text = name
                    ElementTree.SubElement(element, "value").text = value
                else:
                    ElementTree.SubElement(holder, "property", name=name, value=value)
        return ElementTree.tostring(self._root, encoding="utf-8", xml_declaration=True)

    def digest(self) -> str:
        """Digest of all gadgets and of those of their settings that may change images, defaults included.

        It tells reconstructions of one scan apart. Where members of a composite gadget are gadgets of their own it is
        the same; what a process behind `<connect>` or a gadget without a twin makes of its properties is not known, and
        they count as they are written.
        """
        settings: list[tuple[str, Mapping[str, Any]]] = []
        for node in self.nodes:
            as_written = ("connect" if node.address else node.names[0], node.properties)
            try:
                kind = node.load()
                settings += kind.image_settings(node.properties) if kind else [as_written]
            except ReconError:  # a gadget or property that only a real Gadgetron knows
                settings.append(as_written)
        if self.noise and self.noise.scan and self.prewhitens:
            settings.append(("noise", {"digest": self.noise.scan.digest()}))
        if self.reference:
            settings.append(("reference", {"digest": self.reference.scan.digest()}))
        return settings_digest(settings)

    def run(
        self,
        header: Any,
        items: Iterable[Any],
        *,
        processes: bool = False,
        timings: list[StageTiming] | None = None,
        survey: Survey | None = None,
        queue_mib: float = QUEUE_MIB,
    ) -> Iterator[Any]:
        """Run the chain over a stream of acquisitions; yield what its last gadget yields.

        Readouts pass `gadgets.image_lines` first, unless the chain has it: other readouts than lines are left out, and
        lines read backwards turned round, before anything is transformed.

        Parameters
        ----------
        header : ismrmrd.xsd.ismrmrdHeader
            Header of the scan.
        items : iterable
            Acquisitions and waveforms, in the order they were measured.
        processes : bool
            Run each `<external>` in a process of its own, as a Gadgetron server does.
        timings : list of StageTiming, optional
            Filled with one entry a gadget.
        survey : Survey, optional
            Of the acquisitions, where they are known beforehand; external processes do without.
        queue_mib : float
            Most that waits between two gadgets.

        Raises
        ------
        ReconError
            A property, the data or a gadget failed; one line that names it.
        """
        stages: list[tuple[str, Stage]] = []
        prewhitening: NoiseAdjustGadget | None = None
        digest = ScanDigest()
        header_xml = header.toXML().encode() if processes or any(n.address or n.module for n in self.nodes) else b""
        for node in self.nodes:
            kind = node.load()
            name = node.names[0]
            if told := self.noise_properties(node):
                node = replace(node, properties={**node.properties, **told})
            names_scan = kind is not None and any(entry.name == CHAIN_PROPERTY for entry in fields(kind.Parameters))
            if names_scan:
                node = replace(node, properties={**node.properties, CHAIN_PROPERTY: self.digest()})
            own: list[tuple[str, Stage]]
            if node.address:
                own = [(name, external_connection(*node.address, node.configuration(), header_xml))]
            elif node.module and (processes or kind is None):
                own = [(name, external_process(node.module, node.target, node.configuration(), header_xml))]
            else:
                assert kind is not None
                gadget = kind()
                gadget.survey = survey
                gadget.configure(header, node.properties)
                if isinstance(gadget, NoiseAdjustGadget):
                    prewhitening = gadget
                    gadget.noise = self.noise.scan if self.noise else None
                own = gadget.stages(name)
            if names_scan:
                (first, stage), *others = own
                own = [(first, lambda images, stage=stage: stage(digest.mark(images))), *others]  # type: ignore[misc]
            stages += own
            if node.classname == BUFFER_GADGET and (self.reference or self.keep_reference):
                from gadgets.reference_lines import reference_stages  # loads torch, which a server does not need

                stages += reference_stages(header, prewhitening, self.reference, self.keep_reference)
        lines = digest.watch(items)
        if all(node.module != LINES_MODULE for node in self.nodes):
            image_lines = ImageLines()
            image_lines.configure(header, {})
            lines = image_lines.process(lines)
        return digest.mark(run_stages(WholeReadouts(header)(lines), stages, timings, queue_mib))


def shipped_chains() -> dict[str, str]:
    """Names of the chains in xml_configs, with the first line of each one's comment."""
    chains = {}
    for entry in sorted(resources.files("xml_configs").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".xml"):
            comment = entry.read_text().partition("<!--")[2].partition("-->")[0].strip()
            chains[entry.name.removesuffix(".xml")] = comment.splitlines()[0].strip() if comment else ""
    return chains


def shipped_xml(name: str) -> bytes:
    """The file of a chain of `shipped_chains`."""
    return (resources.files("xml_configs") / f"{name}.xml").read_bytes()


def shipped_chain(name: str) -> Chain:
    """A chain of `shipped_chains`."""
    return Chain(shipped_xml(name), name)


def read_chain(config: str) -> Chain:
    """Read a chain.

    Parameters
    ----------
    config : str
        Name of a shipped chain, or path of an XML file.

    Returns
    -------
    Chain
        Its properties can be set.

    Raises
    ------
    ReconError
        If there is neither, or the file is no chain.
    """
    shipped = config.removesuffix(".xml")
    if Path(config).is_file():
        return Chain(Path(config).read_bytes(), config)
    if shipped in shipped_chains():
        return shipped_chain(shipped)
    names = shipped_chains()
    raise ReconError(
        f"{config}: no such chain{did_you_mean(shipped, names)} give an XML file or one of: {', '.join(names)}"
    )
