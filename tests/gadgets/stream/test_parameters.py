"""Properties of a chain become parameters of a gadget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import pytest

from gadgets.stream import Gadget, ReconError, one_line, parameter, read_parameters
from gadgets.stream.parameters import connection_properties


@dataclass(frozen=True)
class Settings:
    method: str = parameter("a", "how", choices=("a", "b"))
    folder: str = parameter("/tmp", "where")
    iterations: int = parameter(10, "how often", minimum=1, maximum=100)
    at_least: int = parameter(3, "lower limit only", minimum=2)
    at_most: float = parameter(0.5, "upper limit only", maximum=2.5)
    weight: float = parameter(1.0, "how much")
    soft: bool = parameter(True, "whether")


def read(**properties: str) -> Any:
    return read_parameters(Settings, properties, "Thing")


def test_no_properties_leave_the_defaults() -> None:
    assert read() == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("method", "b", "b"),
        ("folder", " with blanks ", " with blanks "),
        ("iterations", " 100 ", 100),
        ("iterations", "1", 1),
        ("at_least", "1000000000000000000000000000000", 10**30),
        ("at_most", "-1e300", -1e300),
        ("at_most", "2.5", 2.5),
        ("weight", "3", 3.0),
        ("soft", "false", False),
        ("soft", " No", False),
        ("soft", "0", False),
        ("soft", "TRUE", True),
        ("soft", "yes", True),
    ],
)
def test_text_becomes_the_parameters_type(name: str, text: str, value: Any) -> None:
    got = getattr(read(**{name: text}), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("method", "c", "one of 'a', 'b'"),
        ("method", "", "one of 'a', 'b'"),
        ("iterations", "0", "a whole number from 1 to 100"),
        ("iterations", "101", "a whole number from 1 to 100"),
        ("iterations", "10.0", "a whole number from 1 to 100"),
        ("iterations", "ten", "a whole number from 1 to 100"),
        ("iterations", "", "a whole number from 1 to 100"),
        ("iterations", "1" + 400 * "0", "a whole number from 1 to 100"),
        ("at_least", "1", "a whole number of at least 2"),
        ("at_most", "2.6", "a number of at most 2.5"),
        ("weight", "nan", "a number"),
        ("weight", "inf", "a number"),
        ("weight", "1,5", "a number"),
        ("soft", "maybe", "true or false"),
    ],
)
def test_bad_value_names_gadget_property_and_what_is_allowed(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ReconError) as caught:
        read(**{name: text})
    assert str(caught.value) == f"gadget Thing: property '{name}' is '{text}'; it must be {allowed}"


def test_unknown_property_lists_the_known_ones() -> None:
    with pytest.raises(ReconError, match=r"gadget Thing: unknown property 'x'; it has: method, folder, iter"):
        read(x="a")
    text = r"gadget Thing: unknown property 'metod'; did you mean 'method'\? it has: method, folder, iter"
    with pytest.raises(ReconError, match=text):
        read(metod="a")


def test_gadget_without_parameters_refuses_every_property() -> None:
    gadget = Gadget()
    gadget.configure(None, {})
    with pytest.raises(ReconError, match="gadget Gadget: unknown property 'x'; it has: none"):
        gadget.configure(None, {"x": "1"})


def test_one_line_of_an_error() -> None:
    assert one_line(ReconError("file:\n  broken")) == "file: broken"
    assert one_line(ValueError("no\tgood")) == "ValueError: no good"
    assert one_line(MemoryError()) == "MemoryError"


def test_properties_as_attributes_and_as_children() -> None:
    element = ElementTree.fromstring(
        "<configuration><property name='a' value='1'/><property><name> b </name><value>2</value></property>"
        "<property name='empty' value=''/><property><name>none</name></property></configuration>"
    )
    assert connection_properties(element) == {"a": "1", "b": "2", "empty": "", "none": ""}


def test_no_configuration_has_no_properties() -> None:
    assert connection_properties(None) == {}
    assert connection_properties(ElementTree.Element("configuration")) == {}
