"""The rules of an Open Recon label, schema 1.1.0, one check a rule.

A label is a JSON object with `general`, `reconstruction` and `parameters`. The rules are those of Siemens' schema
1.1.0, and a few that it leaves to the scanner: ids that are unique, defaults within their range or among their choices,
names that fit into those of files and of container images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gadgets.errors import ReconError

ID = re.compile(r"[A-Za-z0-9]+")
SEMANTIC_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
VENDOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
MOST_PARAMETERS = 14
LONGEST_UNIT = 3
INTEGERS = (-(2**31), 2**31 - 1)
STEP = 0.1  # of doubles
REGULATORY = (
    "device_trade_name", "production_identifier", "manufacturer_address", "made_in", "manufacture_date",
    "material_number", "gtin", "udi", "safety_advices", "special_operating_instructions",
    "additional_relevant_information",
)  # fmt: skip
# Points of Siemens' own reconstruction that data come from and images go to, in the pairs that are supported.
PATHS = (("raw", "image"), ("raw", "compleximage"), ("image", "image"))
NUMBERS = ("minimum", "maximum", "default")
# What a parameter of a type must have, and what it may have.
PARAMETER_KEYS = {
    "boolean": (("default",), ()),
    "choice": (("default", "values"), ()),
    "int": (NUMBERS, ("unit",)),
    "double": (NUMBERS, ("unit",)),
    "string": ((), ("default", "isLargeText")),
}


def check_label(label: Any, name: str = "label") -> None:
    """Check a label against the schema.

    Parameters
    ----------
    label : what the JSON holds
    name : of it, for messages

    Raises
    ------
    ReconError
        One line with the first rule that it breaks, where, and what is allowed.
    """
    error = next(_errors(label), None)
    if error is not None:
        raise ReconError(f"{name}: {error}")


def _errors(label: Any) -> Iterator[str]:
    yield from _keys("it", label, ("general", "reconstruction", "parameters"))
    if isinstance(label, dict) and {"general", "reconstruction", "parameters"} <= label.keys():
        yield from _general(label["general"])
        yield from _reconstruction(label["reconstruction"])
        yield from _parameters(label["parameters"])


def _general(general: Any) -> Iterator[str]:
    required = ("name", "version", "vendor", "information", "id", "regulatory_information")
    yield from _keys("general", general, required, ("license_string",))
    for key in ("name", "information"):
        yield from _words(f"general.{key}", general[key])
    for key in ("version", "vendor", "id"):
        yield from _text(f"general.{key}", general[key])
    if "license_string" in general:
        yield from _text("general.license_string", general["license_string"])
    if not SEMANTIC_VERSION.fullmatch(general["version"]):
        yield f"general.version is '{general['version']}'; it must be three numbers, for instance 1.0.0"
    if "+" in general["version"]:
        yield f"general.version is '{general['version']}'; a container image can have no + in its version"
    if not VENDOR.fullmatch(general["vendor"]):
        yield f"general.vendor is '{general['vendor']}'; file names need letters, digits and hyphens alone"
    if not ID.fullmatch(general["id"]):
        yield f"general.id is '{general['id']}'; it must be letters and digits"
    if general["name"]["en"] != general["id"]:
        yield "general.name must be the general.id: files are named after the one or the other"
    about = general["regulatory_information"]
    yield from _keys("general.regulatory_information", about, REGULATORY)
    for key in REGULATORY:
        yield from _text(f"general.regulatory_information.{key}", about[key])


def _reconstruction(found: Any) -> Iterator[str]:
    numbers = {"port": 1, "min_required_memory": 0, "min_count_required_cpu_cores": 1}
    optional_numbers = {"min_count_required_gpus": 0, "min_required_gpu_memory": 0}
    flags = ("can_process_adjustment_data", "require_readout_filter_off")
    required = ("transfer_protocol", "emitter", "injector", "can_use_gpu", *numbers)
    optional = ("content_qualification_type", "channel_compression", *optional_numbers, *flags)
    yield from _keys("reconstruction", found, required, optional)
    protocol = found["transfer_protocol"]
    if not isinstance(protocol, dict) or (protocol.get("protocol"), protocol.get("version")) != ("ISMRMRD", "1.4.1"):
        yield "reconstruction.transfer_protocol must be protocol ISMRMRD, version 1.4.1"
    for key, least in {**numbers, **optional_numbers}.items():
        if key in found:
            yield from _integer(f"reconstruction.{key}", found[key], least, INTEGERS[1])
    if found["port"] > 65535:
        yield f"reconstruction.port is {found['port']}; it must be from 1 to 65535"
    for key in ("can_use_gpu", *flags):
        if key in found and not isinstance(found[key], bool):
            yield f"reconstruction.{key} must be true or false"
    if (found["emitter"], found["injector"]) not in PATHS:
        pairs = ", ".join(" to ".join(pair) for pair in PATHS)
        yield f"reconstruction.emitter and injector must be a pair of: {pairs}"
    if found.get("content_qualification_type", "RESEARCH") not in ("PRODUCT", "SERVICE", "RESEARCH"):
        yield "reconstruction.content_qualification_type must be PRODUCT, SERVICE or RESEARCH"
    if "channel_compression" in found:
        coils = found["channel_compression"]
        where = "reconstruction.channel_compression"
        yield from _keys(where, coils, (), ("require_state", "require_number_target_channels"))
        if coils.get("require_state", "on") not in ("on", "off"):
            yield f"{where}.require_state must be on or off"
        if "require_number_target_channels" in coils:
            number = coils["require_number_target_channels"]
            yield from _integer(f"{where}.require_number_target_channels", number, 1, INTEGERS[1])


def _parameters(parameters: Any) -> Iterator[str]:
    if not isinstance(parameters, list):
        yield "parameters must be a list"
        return
    if len(parameters) > MOST_PARAMETERS:
        yield f"{len(parameters)} parameters; {MOST_PARAMETERS} are allowed"
    seen: set[str] = set()
    for number, parameter in enumerate(parameters, 1):
        yield from parameter_errors(parameter, f"parameter {number}")
        if parameter["id"] in seen:
            yield f"parameter '{parameter['id']}' is there twice"
        seen.add(parameter["id"])


def parameter_errors(parameter: Any, where: str) -> Iterator[str]:
    """Rules that one parameter of a label breaks; what follows the first is not to be relied on."""
    if not isinstance(parameter, dict):
        yield f"{where} must be a JSON object"
        return
    if not isinstance(parameter.get("id"), str) or not ID.fullmatch(parameter["id"]):
        yield f"{where}: its id must be letters and digits alone"
        return
    where = f"{where} '{parameter['id']}'"
    kind = parameter.get("type")
    if not isinstance(kind, str) or kind not in PARAMETER_KEYS:
        yield f"{where}: its type must be one of {', '.join(PARAMETER_KEYS)}"
        return
    required, optional = PARAMETER_KEYS[kind]
    yield from _keys(where, parameter, ("id", "type", "label", *required), ("information", *optional))
    for key in ("label", "information"):
        if key in parameter:
            yield from _words(f"{where}: {key}", parameter[key])
    if "unit" in parameter:
        yield from _words(f"{where}: unit", parameter["unit"])
        if not 1 <= len(parameter["unit"]["en"]) <= LONGEST_UNIT:
            yield f"{where}: its unit must have 1 to {LONGEST_UNIT} letters"
    if kind in ("int", "double"):
        yield from _numbers(where, kind, parameter)
    elif kind == "boolean" and not isinstance(parameter["default"], bool):
        yield f"{where}: its default must be true or false"
    elif kind == "choice":
        yield from _choice(where, parameter)
    elif kind == "string":
        yield from _text(f"{where}: default", parameter.get("default", ""))
        if not isinstance(parameter.get("isLargeText", False), bool):
            yield f"{where}: isLargeText must be true or false"


def _numbers(where: str, kind: str, parameter: Mapping[str, Any]) -> Iterator[str]:
    for key in NUMBERS:
        value = parameter[key]
        if kind == "int":
            yield from _integer(f"{where}: {key}", value, *INTEGERS)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{where}: {key} must be a number"
        elif not math.isclose(value / STEP, round(value / STEP), abs_tol=1e-6):
            yield f"{where}: {key} is {value:g}; doubles go in steps of {STEP:g}"
    if not parameter["minimum"] <= parameter["default"] <= parameter["maximum"]:
        yield f"{where}: its default must be from minimum to maximum"


def _choice(where: str, parameter: Mapping[str, Any]) -> Iterator[str]:
    values = parameter["values"]
    if not isinstance(values, list) or not values:
        yield f"{where}: its values must be a list that is not empty"
        return
    ids = []
    for value in values:
        yield from _keys(f"{where}: a value", value, ("id", "name"))
        yield from _text(f"{where}: the id of a value", value["id"])
        yield from _words(f"{where}: the name of a value", value["name"])
        ids.append(value["id"])
    if "" in ids or len(set(ids)) < len(ids):
        yield f"{where}: the ids of its values must differ and not be empty"
    if parameter["default"] not in ids:
        yield f"{where}: its default must be the id of one of its values"


def _keys(where: str, found: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{where} must be a JSON object"
        return
    if missing := [key for key in required if key not in found]:
        yield f"{where} lacks {', '.join(missing)}"
    if extra := [str(key) for key in found if key not in (*required, *optional)]:
        yield f"{where} has {', '.join(extra)}, which the schema does not know; it may have {_list(required, optional)}"


def _list(required: tuple[str, ...], optional: tuple[str, ...]) -> str:
    return ", ".join((*required, *optional))


def _text(where: str, found: Any) -> Iterator[str]:
    if not isinstance(found, str):
        yield f"{where} must be a text"


def _words(where: str, found: Any) -> Iterator[str]:
    """Errors of a text in several languages, of which English must be one."""
    if not isinstance(found, dict) or not isinstance(found.get("en"), str):
        yield f'{where} must be a text in English, {{"en": "..."}}'
    elif not all(isinstance(text, str) for text in found.values()):
        yield f"{where} must be a text in each language"


def _integer(where: str, found: Any, least: int, most: int) -> Iterator[str]:
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        yield f"{where} must be a whole number from {least} to {most}"
