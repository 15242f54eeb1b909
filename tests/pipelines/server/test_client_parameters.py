"""Parameters with flat names on their way through a socket to the gadgets, and what clients are told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gadgets.images import meta_of, meta_values
from gadgets.stream import ReconError
from gadgets.stream.logs import collected_warnings
from pipelines.chain import Chain, shipped_chain, shipped_xml
from pipelines.cli import app
from pipelines.flat_parameter_table import TABLE
from pipelines.replay import read_images
from pipelines.send import SendResult, send
from pipelines.server.listener import Server
from pipelines.server.request import Request
from pipelines.server.requested_chain import requested_chain
from pipelines.server.settings import ServeSettings
from tests import raw_files
from tests.pipelines.server.serving import CLOSE, SCAN, address, exchanged, fire_error_of, named, serving, stream


def asked(name: str, settings: ServeSettings | None = None, **parameters: Any) -> tuple[dict[str, str], list[str]]:
    """Properties of the reconstruction in the chain that a request leads to, and the warnings."""
    text = json.dumps({"parameters": parameters}).encode()
    warnings: list[str] = []
    with collected_warnings(warnings):
        chain = requested_chain(Request(name, None, b"", (text,), 4), settings or ServeSettings())
    return properties(chain), warnings


def properties(chain: Chain) -> dict[str, str]:
    prefix = "generative_recon."
    return {
        name.removeprefix(prefix): value
        for node in chain.nodes
        for name, value in node.properties.items()
        if name.startswith(prefix)
    }


def write_chain(path: Path, name: str, value: str) -> None:
    """Chain svd_wkgm with a property of its reconstruction."""
    chain = shipped_chain("svd_wkgm")
    chain.set("generative_recon", name, value)
    path.write_bytes(chain.to_xml())


def sent(raw: Path, server: Server, folder: Path, **parameters: Any) -> SendResult:
    """Send a scan as FIRE does, with the name that Open Recon sends."""
    return send(raw, "openrecon", address(server), out=folder, parameters=parameters, timeout=60)


@pytest.mark.slow
def test_all_that_a_scanner_sends_reaches_the_gadgets(raw: Path, server: Server, tmp_path: Path) -> None:
    result = sent(
        raw,
        server,
        tmp_path / "out",
        config="svd_wkgm",
        method="wkgm",
        quality="fast",
        denoise="2.0",
        samples="2",
        series="magnitude,phase",
        averages="auto",
    )
    assert result.texts == () or not any("parameter" in text for text in result.texts)
    assert result.images == 3 * SCAN.slices  # magnitude, phase and standard deviation
    image = next(read_images(tmp_path / "out", 1))
    meta = meta_of(image.attribute_string)
    assert meta_values(meta, "GenreconMethod") == ["wkgm"]
    (settings,) = meta_values(meta, "GenreconSettings")
    assert {"samples=2", "quality=fast", "denoising=2.0"} <= set(settings.split())
    assert len(list(read_images(tmp_path / "out", 201))) == SCAN.slices


@pytest.mark.slow
def test_the_time_limit_reaches_the_method(raw: Path, server: Server, tmp_path: Path) -> None:
    """There is no time for so many samples."""
    result = sent(raw, server, tmp_path / "out", config="svd_wkgm", samples=64, timelimit="1")
    assert any("time_budget_s" in text for text in result.warnings)


def test_averages_are_separate(server: Server, tmp_path: Path) -> None:
    data = raw_files.kspace()
    lines = [line for number in range(2) for line in raw_files.lines(data, average=number)]
    file = raw_files.write(tmp_path / "scan.h5", (raw_files.header(limits={"average": (0, 1, 0)}), lines))
    counts = [
        sent(file, server, tmp_path / text, config="cg_sense", averages=text).images for text in ("auto", "separate")
    ]
    assert counts == [1, 2]


def test_defaults_leave_every_chain_as_it_is() -> None:
    defaults = {parameter.id: parameter.default for parameter in TABLE}
    for config in ("cg_sense", "svd_wkgm", "hkgm"):
        assert asked(config, **defaults) == asked(config)
        assert asked(config, **{name: str(value) for name, value in defaults.items()})[1] == []


def test_open_recon_gets_the_default_chain_or_the_one_of_its_parameter(raw: Path, tmp_path: Path) -> None:
    assert asked("openrecon")[0]["method"] == "cg_sense"
    assert asked("openrecon", ServeSettings(default_chain="l1_wavelet"))[0]["method"] == "l1_wavelet"
    assert asked("default_measurement_dependencies.xml")[0]["method"] == "cg_sense"
    assert asked("openrecon", config="svd_wkgm")[0]["method"] == "svd_wkgm"
    assert asked("openrecon", config="svd_wkgm", customconfig="l1_wavelet")[0]["method"] == "l1_wavelet"
    with pytest.raises(ReconError, match="there is no chain 'invertcontrast'; the server has: cg_sense"):
        asked("openrecon", config="invertcontrast")


def test_what_means_nothing_to_the_method_is_a_warning() -> None:
    found, warnings = asked("cg_sense", samples=4, quality="best", timelimit=30, denoise=2)
    assert found["method"] == "cg_sense" and found["denoising"] == "2"
    assert not {"samples", "quality", "time_budget_s"} & found.keys()
    assert sorted(warnings) == [
        "parameter 'quality' does nothing with method cg_sense",
        "parameter 'samples' does nothing with method cg_sense",
        "parameter 'timelimit' does nothing with method cg_sense",
    ]
    assert asked("svd_wkgm", method="grappa", denoise=2)[1] == ["parameter 'denoise' does nothing with method grappa"]


def test_a_new_method_leaves_out_what_the_chain_had_for_its_own(tmp_path: Path) -> None:
    write_chain(tmp_path / "own.xml", "samples", "8")
    settings = ServeSettings(chains=tmp_path)
    assert asked("own", settings)[0]["samples"] == "8"
    assert asked("own", settings, samples=0)[0]["samples"] == "8"
    found, warnings = asked("own", settings, method="cg_sense")
    assert "samples" not in found
    assert warnings == ["the chain's property 'samples' means nothing to method cg_sense and is left out"]


def test_quality_is_for_any_sampler(tmp_path: Path) -> None:
    write_chain(tmp_path / "own.xml", "sampler", "predictor_corrector")
    found, warnings = asked("own", ServeSettings(chains=tmp_path), quality="fast")
    assert found["quality"] == "fast" and not warnings


def test_keys_with_a_dot_come_after_flat_names() -> None:
    assert asked("svd_wkgm", **{"generative_recon.samples": 3}, samples=2)[0]["samples"] == "3"


def test_a_chain_without_the_gadget_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "own.xml").write_bytes(shipped_xml("svd_wkgm_connect"))
    _, warnings = asked("own", ServeSettings(chains=tmp_path), samples=2)
    assert warnings == ["parameter 'samples' does nothing: chain own has no gadget for it"]


def test_unknown_names_are_told_to_the_client(raw: Path, server: Server) -> None:
    parameters = {"config": "cg_sense", "sendOriginal": "True", "options": "", "filterSize": "3", "Samples": 4}
    found = exchanged(server, stream(raw, named("openrecon"), json.dumps({"parameters": parameters}).encode()))
    told = "WARNING  unknown parameter 'filterSize', 'Samples': it changes nothing; there are: config, method, quality"
    assert told.encode() in found and b"sendOriginal" not in found and found.endswith(CLOSE)


def test_many_unknown_names_are_a_short_line() -> None:
    _, (warning,) = asked("cg_sense", **{f"{number}\n{100 * 'x'}": 1 for number in range(1000)})
    assert "and 995 more" in warning and warning.isprintable() and len(warning) < 500


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"samples": "100"}, "parameter 'samples' is '100'; it must be a whole number from 0 to 64"),
        ({"method": "magic"}, "parameter 'method' is 'magic'; it must be one of auto"),
        ({"method": {"a": 1}}, "parameter 'method' is neither a text nor a number"),
    ],
)
def test_bad_values_are_errors(parameters: dict[str, Any], match: str, raw: Path, server: Server) -> None:
    found = exchanged(server, stream(raw, named("cg_sense"), json.dumps({"parameters": parameters}).encode()))
    assert match in fire_error_of(found)


def test_a_default_chain_that_is_not_there_ends_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--default-chain", "missing"])
    assert isinstance(result.exception, ReconError) and "there is no chain 'missing'" in str(result.exception)


def test_parameters_of_gadgetron_s_client_are_none(raw: Path) -> None:
    with serving(default_chain="l1_wavelet") as server:
        assert send(raw, "openrecon", address(server), timeout=30).images == SCAN.slices
