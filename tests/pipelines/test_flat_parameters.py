"""Flat names of parameters: what each takes, and that its properties exist and take all of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gadgets.generative_recon import GenerativeRecon
from gadgets.stream import ReconError
from gadgets.stream.parameters import local_parameters, read_parameters
from pipelines.flat_parameter_table import TABLE
from pipelines.flat_parameters import NOT_OF_GADGETS, FlatParameter, read_flat

BY_ID = {parameter.id: parameter for parameter in TABLE}


def extremes(parameter: FlatParameter) -> list[Any]:
    """Values that a client may send, the smallest and the largest number among them."""
    return list(parameter.values or (parameter.minimum, parameter.maximum))


def test_names_are_letters_and_digits_at_most_14() -> None:
    assert all(re.fullmatch("[A-Za-z0-9]{1,14}", name) for name in BY_ID)
    assert len(BY_ID) == len(TABLE) and not BY_ID.keys() & set(NOT_OF_GADGETS)


@pytest.mark.parametrize("parameter", TABLE, ids=lambda parameter: parameter.id)
def test_its_properties_take_every_value(parameter: FlatParameter) -> None:
    texts = [parameter.text(value) for value in extremes(parameter)]
    assert any(text is not None for text in texts)
    for setting in parameter.settings:
        gadget, _, name = setting.rpartition(".")
        assert gadget == "generative_recon" and name not in local_parameters(GenerativeRecon.Parameters)
        for text in texts:
            if text is not None:
                read_parameters(GenerativeRecon.Parameters, {name: text}, gadget)


@pytest.mark.parametrize("parameter", TABLE, ids=lambda parameter: parameter.id)
def test_the_default_leaves_the_chain_as_it_is(parameter: FlatParameter) -> None:
    assert parameter.text(parameter.default) is None
    assert parameter.text(str(parameter.default)) is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("samples", "4", "4"),
        ("samples", 4.0, "4"),
        ("samples", " 4.0 ", "4"),
        ("samples", "1", "1"),
        ("denoise", "0.3", "0.3"),
        ("denoise", 2, "2"),
        ("denoise", 0.1 + 0.2, "0.3"),
        ("method", "CG_SENSE", "cg_sense"),
        ("quality", "fast", "fast"),
        ("series", "phase, magnitude,phase", "phase,magnitude"),
        ("series", "magnitude,phase", "magnitude,phase"),
        ("series", "Magnitude,SNR,gfactor", "magnitude,snr,gfactor"),
        ("averages", "separate", "false"),
        ("partialfourier", "POCS", "pocs"),
        ("partialfourier", "off", "off"),
        ("shading", "fit", "fit"),
        ("timelimit", "3600", "3600"),
    ],
)
def test_values_as_scanners_send_them(name: str, value: Any, text: str) -> None:
    assert BY_ID[name].text(value) == text


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("samples", "65", "is '65'; it must be a whole number from 0 to 64"),
        ("samples", -1, "it must be a whole number from 0 to 64"),
        ("samples", "2.5", "is '2.5'; it must be a whole number"),
        ("samples", "many", "is 'many'; it must be a whole number"),
        ("samples", True, "is 'True'; it must be a whole number"),
        ("samples", "nan", "it must be a whole number"),
        ("samples", 10**400, "it must be a whole number"),
        ("denoise", float("inf"), "it must be a number from 0.1 to 2"),
        ("denoise", "0,5", "is '0,5'; it must be a number from 0.1 to 2"),
        ("denoise", 0, "it must be a number from 0.1 to 2"),
        ("method", "magic", "it must be one of auto, zero_filled"),
        ("method", "custom\n", "custom"),
        ("quality", "", "is ''; it must be one of fast, standard, best"),
        ("series", "magnitude,colour", "it must be auto, or some of magnitude, phase"),
        ("series", ",", "it must be auto, or some of"),
        ("averages", False, "it must be one of auto, combined, separate"),
        ("samples", None, "neither a text nor a number; it must be a whole number"),
        ("method", ["x"], "neither a text nor a number; it must be one of"),
        ("method", 100 * "x", f"is '{40 * 'x'}...'; it must be"),
    ],
)
def test_bad_values_tell_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    if value == "custom\n":  # clients may name every method; its code is for the server's own chains
        assert BY_ID[name].text(value) == allowed
        return
    with pytest.raises(ReconError, match=re.escape(allowed)) as error:
        BY_ID[name].text(value)
    assert f"parameter '{name}'" in str(error.value) and "\n" not in str(error.value)


def test_booleans_and_texts_of_a_site() -> None:
    flag = FlatParameter("flag", "", "", "boolean", ("espirit.soft",), False)
    assert [flag.text(value) for value in ("True", True, 1, "yes")] == 4 * ["true"]
    assert [flag.text(value) for value in ("False", False, "0")] == 3 * [None]
    with pytest.raises(ReconError, match="parameter 'flag' is 'maybe'; it must be true or false"):
        flag.text("maybe")
    both = FlatParameter("flag", "", "", "boolean", ("espirit.soft",), None)
    assert [both.text(value) for value in (True, "false")] == ["true", "false"]
    words = FlatParameter("words", "", "", "string", ("dicom_output.series_description",), "")
    assert [words.text(value) for value in ("", "T2 best", 3)] == [None, "T2 best", "3"]


def test_what_is_unknown_is_told_and_fires_own_keys_are_not() -> None:
    sent = dict.fromkeys(NOT_OF_GADGETS, "x") | {"espirit.map_sets": 1, "samples": 2, "filterSize": "3"}
    found, unknown = read_flat(sent, TABLE)
    assert [(parameter.id, text) for parameter, text in found] == [("samples", "2")]
    assert unknown == ["filterSize"]
