"""Property `prior` as a list with weights: what is loaded, what the images say, and what is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gadgets.images import meta_of, meta_values
from gadgets.reconstruction import Reconstruction
from gadgets.solvers.loading import load
from gadgets.stream import ReconError
from pipelines.chain import Chain, read_chain
from pipelines.evaluation.entries import read_entry
from pipelines.simulation import SimulationSettings, simulate
from priors.joint import JointPrior
from priors.learning.checkpoints import shipped_checkpoint
from tests.paths import ROOT
from tests.unrolled_weights import write_unrolled

SCAN = SimulationSettings(matrix=(32, 32, 1), coils=4, sampling="uniform", acceleration=2, calibration_lines=12)
CPU = torch.device("cpu")
EXAMPLE = ROOT / "docs" / "examples" / "smoothing_prior.py"


def chain_with(prior: str, **properties: Any) -> Chain:
    chain = read_chain("generative")
    node = next(node for node in chain.nodes if "reconstruction" in node.names)
    node.properties |= {f"generative_recon.{name}": str(value) for name, value in properties.items()}
    node.properties["generative_recon.prior"] = prior
    return chain


def image_of(prior: str, **properties: Any) -> Any:
    simulation = simulate(SCAN)
    (image,) = chain_with(prior, **properties).run(simulation.header, simulation.acquisitions())
    return image


def test_an_image_with_a_list_says_so() -> None:
    image = image_of("3*wkgm + wavelet + low_rank", method="wkgm", steps=6)
    meta = meta_of(image.attribute_string)
    (settings,) = meta_values(meta, "GenreconSettings")
    assert " prior=3*wkgm:" in settings and "+1*wavelet+low_rank" in settings
    assert not meta_values(meta, "GenreconFallback") and image.data.max() > 1000
    assert meta_values(meta, "GenreconEvaluations") == [
        "8"
    ]  # 6, and 2 that look whether the data are unlike the prior's


def test_a_list_survives_xml() -> None:
    text = "0.5*a b.safetensors + wkgm + low_rank"
    assert text in chain_with(text).to_xml().decode()


def test_low_rank_in_a_list_is_that_of_svd_wkgm() -> None:
    listed = image_of("wkgm + low_rank", method="wkgm", steps=6)
    alone = image_of("", method="svd_wkgm", steps=6)
    without = image_of("", method="wkgm", steps=6)
    assert np.array_equal(listed.data, alone.data) and not np.array_equal(without.data, alone.data)


def test_members_by_file_by_name_and_by_code(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped_checkpoint("wkgm").with_suffix(suffix), tmp_path / f"my prior{suffix}")
    found = load("svd_wkgm", f"{tmp_path}/my prior.safetensors + 3*wavelet", CPU)
    assert isinstance(found.prior, JointPrior) and found.prior.weights == (0.25, 0.75)
    assert found.card is None and found.text.startswith("1*wkgm:")
    one = load("svd_wkgm", "2*wkgm + low_rank", CPU)
    assert not isinstance(one.prior, JointPrior) and one.low_rank and one.card is not None
    mine = load("custom", f"{EXAMPLE}:SmoothingPrior + wavelet", CPU)
    assert isinstance(mine.prior, JointPrior) and "smoothing_prior.py:" in mine.text


def test_lists_that_are_refused(tmp_path: Path) -> None:
    unrolled = write_unrolled(tmp_path / "u.safetensors", torch.ones(8, 8))
    gadget = Reconstruction()
    header = simulate(SCAN).header
    for prior, properties, message in (
        ("wkgm + 0*wavelet", {}, "weight '0' of prior wavelet is no number above 0"),
        ("wkgm + tv", {}, r"'tv' in a list of priors is neither a file of weights \(.safetensors\) nor wkgm, svd_wkgm"),
        ("wkgm + glow", {}, r"method glow: no weights come with it; learn them \(genrecon train glow\)"),
        ("wkgm + daep:old", {}, "method daep: there is no variant 'old'; take published, or none"),
        (f"wkgm + {unrolled}", {}, "are a reconstruction and no prior; take method unrolled"),
        (f"wkgm + {tmp_path}/none.safetensors", {}, "none.json: cannot be read"),
        (f"wkgm + {EXAMPLE}:SmoothingPrior", {}, "names code, which method custom takes and svd_wkgm does not"),
        ("wkgm + low_rank*2", {}, "weight 'low_rank' of prior 2 is no number above 0; give WEIGHT"),
        ("wkgm + wavelet", {"sigma_max": 50}, "noise levels: 50 to 50 leave the range"),
        (f"wkgm + {EXAMPLE}:SmoothingPrior", {"method": "custom"}, "windows of 0 and 24 samples"),
        ("hkgm + wkgm", {"method": "hkgm", "training": "self"}, "method hkgm does not learn from the scan"),
    ):
        given = {"method": "svd_wkgm", "prior": prior} | properties
        with pytest.raises(ReconError, match=message) as caught:
            gadget.configure(header, {f"generative_recon.{name}": str(value) for name, value in given.items()})
        assert "\n" not in str(caught.value) and str(caught.value).startswith("gadget ")


def test_benchmark_entries_of_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped_checkpoint("wkgm").with_suffix(suffix), tmp_path / f"mine{suffix}")
    monkeypatch.chdir(tmp_path)
    entry = read_entry("svd_wkgm:prior=2*mine.safetensors+hkgm+wavelet+low_rank,steps=8")
    assert dict(entry.properties)["prior"] == f"2*{tmp_path}/mine.safetensors + 1*hkgm + 1*wavelet + low_rank"
    before = entry.identity()
    shutil.copy(shipped_checkpoint("hkgm"), tmp_path / "mine.safetensors")
    assert entry.identity() != before
    with pytest.raises(ReconError, match=r"benchmark: --method is 'svd_wkgm:prior=x\*wkgm': weight 'x' of prior wkgm"):
        read_entry("svd_wkgm:prior=x*wkgm")


def test_weights_of_the_package_are_named_without_a_path() -> None:
    named = load("svd_wkgm", "wkgm_contrasts", CPU)
    assert named.card is not None and named.card.name == "wkgm_contrasts"
    assert load("svd_wkgm", str(shipped_checkpoint("wkgm_contrasts")), CPU).text == named.text
    assert "wkgm_contrasts" in load("wkgm", "wkgm_contrasts + wkgm", CPU).text
    with pytest.raises(ValueError, match="weights of kind 'wkgm' are not for method hggdp; take method wkgm"):
        load("hggdp", "wkgm_contrasts", CPU)


@pytest.mark.parametrize("text", ["unrolled:prior=unrolled_ssdu", "svd_wkgm:prior=wkgm_contrasts"])
def test_benchmark_entries_of_named_weights(text: str) -> None:
    entry = read_entry(text)
    assert entry.label == text.replace(":", " ")
    assert len(entry.identity()) == len(entry.label) + 64
