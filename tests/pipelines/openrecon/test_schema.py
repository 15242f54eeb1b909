"""A label that breaks a rule of schema 1.1.0 is refused, one rule a test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from gadgets.errors import ReconError
from pipelines.openrecon.label import make_label, offered_chains
from pipelines.openrecon.schema import MOST_PARAMETERS, REGULATORY, check_label
from pipelines.openrecon.site import Site

LABEL = make_label(Site(), offered_chains())
WORDS = {"en": "x"}
FLAG = {"id": "flag", "type": "boolean", "label": WORDS, "default": True}
NUMBER = {"id": "n", "type": "double", "label": WORDS, "minimum": 0, "maximum": 1.5, "default": 0.3, "unit": WORDS}
COUNT = {"id": "c", "type": "int", "label": WORDS, "minimum": -1, "maximum": 5, "default": 0}
TEXT = {"id": "t", "type": "string", "label": WORDS, "default": "", "isLargeText": True}
CHOICE = {"id": "k", "type": "choice", "label": WORDS, "default": "a", "values": [{"id": "a", "name": WORDS}]}


def without(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != key}


def label(section: str, **changes: Any) -> dict[str, Any]:
    """The label with changed keys in a section."""
    found = copy.deepcopy(LABEL)
    found[section] |= changes
    return found


def parameters(*some: Any) -> dict[str, Any]:
    return {**copy.deepcopy(LABEL), "parameters": list(some)}


def test_the_label_and_every_type_of_parameter_are_allowed() -> None:
    check_label(LABEL)
    check_label(parameters())
    check_label(parameters(FLAG, NUMBER, COUNT, TEXT, CHOICE, without({**TEXT, "id": "u"}, "default")))
    check_label(parameters(*({**FLAG, "id": f"p{number}"} for number in range(MOST_PARAMETERS))))
    for version in ("1.0.0", "0.0.1-rc.1", "10.20.30-alpha"):
        check_label(label("general", version=version))
    check_label(label("general", license_string="x", information={"en": "a", "de": "b"}))
    check_label(label("reconstruction", injector="compleximage", channel_compression={"require_state": "on"}))


GENERAL = ("name", "version", "vendor", "information", "id", "regulatory_information")
RECONSTRUCTION = (
    "transfer_protocol", "port", "emitter", "injector", "can_use_gpu", "min_required_memory",
    "min_count_required_cpu_cores",
)  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ([], "it must be a JSON object"),
        *((without(LABEL, key), f"it lacks {key}") for key in LABEL),
        ({**LABEL, "more": 1}, "it has more, which the schema does not know"),
        *(({**LABEL, "general": without(LABEL["general"], key)}, f"general lacks {key}") for key in GENERAL),
        (label("general", more=1), "general has more"),
        (label("general", name="x"), "general.name must be a text in English"),
        (label("general", name={"de": "x"}), "general.name must be a text in English"),
        (label("general", name={"en": "genrecon", "de": 1}), "general.name must be a text in each language"),
        (label("general", name={"en": "other"}), "general.name must be the general.id"),
        (label("general", id="a b", name={"en": "a b"}), "general.id is 'a b'; it must be letters and digits"),
        (label("general", id=3), "general.id must be a text"),
        (label("general", vendor="A/B"), "general.vendor is 'A/B'"),
        (label("general", vendor="my_site"), "file names need letters, digits and hyphens"),
        (label("general", version="1.0"), "general.version is '1.0'; it must be three numbers"),
        (label("general", version="01.0.0"), "it must be three numbers"),
        (label("general", version="1.0.0\n"), "it must be three numbers"),
        (label("general", version="1.0.0+5"), "can have no +"),
        (label("general", license_string=1), "license_string must be a text"),
        (label("general", regulatory_information=[]), "regulatory_information must be a JSON object"),
        *(
            (label("general", regulatory_information=without(LABEL["general"]["regulatory_information"], key)), key)
            for key in REGULATORY
        ),
        *(
            ({**LABEL, "reconstruction": without(LABEL["reconstruction"], key)}, f"reconstruction lacks {key}")
            for key in RECONSTRUCTION
        ),
        (label("reconstruction", more=1), "reconstruction has more"),
        (label("reconstruction", transfer_protocol={"protocol": "ISMRMRD", "version": "2"}), "version 1.4.1"),
        (label("reconstruction", transfer_protocol="ISMRMRD"), "version 1.4.1"),
        (label("reconstruction", port="9002"), "port must be a whole number"),
        (label("reconstruction", port=70000), "must be from 1 to 65535"),
        (label("reconstruction", emitter="kspace"), "must be a pair of: raw to image"),
        (label("reconstruction", emitter="image", injector="compleximage"), "must be a pair of"),
        (label("reconstruction", can_use_gpu="yes"), "can_use_gpu must be true or false"),
        (label("reconstruction", can_process_adjustment_data=1), "can_process_adjustment_data must be true or false"),
        (label("reconstruction", require_readout_filter_off=None), "require_readout_filter_off must be true or false"),
        (label("reconstruction", min_required_memory=-1), "min_required_memory must be a whole number from 0"),
        (label("reconstruction", min_count_required_cpu_cores=0), "cpu_cores must be a whole number from 1"),
        (label("reconstruction", min_count_required_gpus=0.5), "gpus must be a whole number from 0"),
        (label("reconstruction", min_required_gpu_memory=True), "gpu_memory must be a whole number from 0"),
        (label("reconstruction", content_qualification_type="CLINICAL"), "PRODUCT, SERVICE or RESEARCH"),
        (label("reconstruction", channel_compression="off"), "channel_compression must be a JSON object"),
        (label("reconstruction", channel_compression={"require_state": "auto"}), "must be on or off"),
        (label("reconstruction", channel_compression={"require_number_target_channels": 0}), "from 1 to"),
        (label("reconstruction", channel_compression={"more": 0}), "channel_compression has more"),
        ({**LABEL, "parameters": {}}, "parameters must be a list"),
        (parameters(*({**FLAG, "id": f"p{n}"} for n in range(MOST_PARAMETERS + 1))), "15 parameters; 14 are allowed"),
        (parameters(3), "parameter 1 must be a JSON object"),
        (parameters(FLAG, FLAG), "'flag' is there twice"),
        *((parameters({**FLAG, "id": name}), "letters and digits alone") for name in ("a.b", "a_b", "", "ä", "a\n", 3)),
        (parameters(without(FLAG, "id")), "letters and digits alone"),
        (parameters({**FLAG, "type": "bool"}), "its type must be one of boolean, choice, int, double, string"),
        (parameters({**FLAG, "type": []}), "its type must be one of"),
        (parameters(without(FLAG, "label")), "parameter 1 'flag' lacks label"),
        (parameters({**FLAG, "label": "x"}), "label must be a text in English"),
        (parameters({**FLAG, "information": {}}), "information must be a text in English"),
        (parameters({**FLAG, "unit": WORDS}), "has unit, which the schema does not know"),
        (parameters({**FLAG, "default": "true"}), "its default must be true or false"),
        *((parameters(without(NUMBER, key)), f"lacks {key}") for key in ("minimum", "maximum", "default")),
        *((parameters(without(COUNT, key)), f"lacks {key}") for key in ("minimum", "maximum", "default")),
        (parameters({**NUMBER, "default": 0.25}), "default is 0.25; doubles go in steps of 0.1"),
        (parameters({**NUMBER, "maximum": float("inf")}), "maximum must be a number"),
        (parameters({**NUMBER, "minimum": "0"}), "minimum must be a number"),
        (parameters({**NUMBER, "default": 2.0}), "its default must be from minimum to maximum"),
        (parameters({**NUMBER, "unit": {"en": "mmHg"}}), "its unit must have 1 to 3 letters"),
        (parameters({**NUMBER, "unit": {"en": ""}}), "its unit must have 1 to 3 letters"),
        (parameters({**COUNT, "default": 0.0}), "default must be a whole number"),
        (parameters({**COUNT, "maximum": 2**31}), "maximum must be a whole number from -2147483648 to 2147483647"),
        (parameters({**COUNT, "minimum": 1}), "its default must be from minimum to maximum"),
        (parameters({**TEXT, "default": 1}), "default must be a text"),
        (parameters({**TEXT, "isLargeText": "no"}), "isLargeText must be true or false"),
        (parameters(without(CHOICE, "values")), "lacks values"),
        (parameters(without(CHOICE, "default")), "lacks default"),
        (parameters({**CHOICE, "values": []}), "a list that is not empty"),
        (parameters({**CHOICE, "values": {"a": 1}}), "a list that is not empty"),
        (parameters({**CHOICE, "values": [{"id": "a"}]}), "a value lacks name"),
        (parameters({**CHOICE, "values": ["a"]}), "a value must be a JSON object"),
        (parameters({**CHOICE, "values": [{"id": 1, "name": WORDS}]}), "the id of a value must be a text"),
        (parameters({**CHOICE, "values": [{"id": "a", "name": "x"}]}), "the name of a value must be a text in English"),
        (parameters({**CHOICE, "values": 2 * CHOICE["values"]}), "must differ"),  # type: ignore[operator]
        (parameters({**CHOICE, "default": "b"}), "its default must be the id of one of its values"),
        (parameters({**CHOICE, "default": []}), "its default must be the id of one of its values"),
    ],
)
def test_a_broken_rule_is_told_in_one_line(broken: Any, match: str) -> None:
    with pytest.raises(ReconError) as error:
        check_label(broken, "label.json")
    assert match in str(error.value) and str(error.value).startswith("label.json: ")
    assert "Traceback" not in str(error.value)


def _random_changes() -> list[Callable[[Any], Any]]:
    return [lambda _: None, lambda _: [], lambda _: {}, lambda _: "x", lambda _: 1.5, lambda _: {"en": 3}]


@pytest.mark.parametrize("change", _random_changes())
def test_whatever_stands_in_a_label_the_check_ends_in_an_error_or_none(change: Callable[[Any], Any]) -> None:
    def walk(found: Any) -> None:
        for key in list(found) if isinstance(found, dict) else range(len(found)):
            kept = found[key]
            found[key] = change(kept)
            try:
                check_label(broken)
            except ReconError as error:
                assert "\n" not in str(error)
            found[key] = kept
            if isinstance(kept, dict | list):
                walk(kept)

    broken = copy.deepcopy(LABEL)
    walk(broken)
    assert broken == LABEL
