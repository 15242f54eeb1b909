"""The gadgets of a chain, as its XML describes them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from xml.etree import ElementTree

from gadgets.stream import Gadget, ReconError, one_line
from gadgets.stream.parameters import connection_properties
from gadgets.twins import TWINS


@dataclass
class Node:
    """One gadget of a chain, with the XML element it was read from and where its properties are written back."""

    element: ElementTree.Element
    names: tuple[str, ...]  # that --set may use; the first one is for messages
    properties: dict[str, str] = field(default_factory=dict)
    classname: str = ""
    module: str = ""
    target: str = ""
    address: tuple[str, int] | None = None

    def load(self) -> type[Gadget] | None:
        """The gadget's class; None for an external target that is not one of our gadgets (a plain function, say).

        Raises ReconError when there is no twin of the class, or the module or target is missing.
        """
        if self.classname:
            if self.classname not in TWINS:
                raise ReconError(
                    f"gadget {self.classname}: it has no Python twin here; run this chain on a real Gadgetron "
                    "(--gadgetron HOST:PORT) or leave it out"
                )
            return TWINS[self.classname]
        if self.address:
            return None
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            raise ReconError(
                f"external {self.module}: the module cannot be imported ({one_line(error)}); install it or correct "
                "the name in <execute>"
            ) from None
        target = getattr(module, self.target, None)
        if target is None:
            raise ReconError(f"external {self.module}: it has no '{self.target}'; correct the target in <execute>")
        return target if isinstance(target, type) and issubclass(target, Gadget) else None

    def configuration(self) -> bytes:
        """Its properties as XML, for a gadget of another process."""
        element = ElementTree.Element("configuration")
        for name, value in self.properties.items():
            ElementTree.SubElement(element, "property", name=name, value=value)
        return ElementTree.tostring(element)


def node_of(element: ElementTree.Element, chain: str) -> Node:
    """The gadget that an element of a chain describes; the chain's name is for messages. Raises ReconError."""
    if element.tag == "gadget":
        classname = (element.findtext("classname") or "").strip()
        label = (element.findtext("name") or "").strip()
        names = tuple(name for name in dict.fromkeys((classname, label)) if name)
        if classname == "PythonGadget":
            properties = _properties(element)
            module, target = properties.pop("python_module", ""), properties.pop("python_class", "")
            return Node(element, (module.rpartition(".")[2], target), properties, module=module, target=target)
        return Node(element, names, _properties(element), classname=classname)
    if element.tag != "external":
        raise ReconError(
            f"{chain}: <{element.tag}> is run by a real Gadgetron only; use --gadgetron HOST:PORT or a plain "
            "chain of gadgets"
        )
    configuration = element.find("configuration")
    properties = {} if configuration is None else connection_properties(configuration)
    execute, connect = element.find("execute"), element.find("connect")
    if execute is not None:
        module, target = execute.get("name", ""), execute.get("target", "")
        if execute.get("type", "").lower() != "python":
            raise ReconError(
                f"{chain}: external {module} is of type '{execute.get('type')}'; only python runs here, "
                "use a real Gadgetron for it (--gadgetron HOST:PORT)"
            )
        names = (module.rpartition(".")[2], target)
        return Node(element, names, properties, module=module, target=target)
    if connect is None:
        raise ReconError(f"{chain}: an <external> has neither <execute> nor <connect>; add one")
    host, port = connect.get("address") or "localhost", connect.get("port", "")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ReconError(f"{chain}: <connect> has port '{port}'; it must be a number from 1 to 65535")
    return Node(element, (f"{host}:{port}",), properties, address=(host, int(port)))


def _properties(element: ElementTree.Element) -> dict[str, str]:
    holder = ElementTree.Element("properties")
    holder.extend(element.findall("property"))
    return {name: value.strip() for name, value in connection_properties(holder).items()}
