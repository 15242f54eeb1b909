"""The systems of denoisers: their networks, domains, training and rules, with networks of seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from priors.denoiser import DenoiserPrior
from priors.domains import ImageDomain, ReplicaDomain, WaveletDomain
from priors.fixed_levels import FixedLevelDenoiser, FixedLevelOptions, load_fixed_levels
from priors.image_denoiser import OfBands, load_of_bands
from priors.learning.cards import ModelCard
from priors.learning.convolutional import (
    ConvolutionalArchitecture,
    convolutional_network,
    from_haar_bands,
    haar_bands,
)
from priors.learning.recipe import Run, TrainingSet, with_settings
from priors.prior import SigmaLevels
from priors.reconstruct import reconstruct
from priors.registry import generative_method
from priors.settings import ReconstructionSettings
from priors.signal.fourier import fft2c

SYSTEMS = ("daep", "edaep", "dmsp", "medmsp", "wdaep", "hggdp")
TINY = {
    "settings.steps": "2", "settings.batch": "2", "settings.crop": "16", "settings.bf16": "false", "warm_up": "0",
}  # fmt: skip
OF_FIXED = {"options.architecture.layers": "4", "options.architecture.width": "8"}
OF_UNET = {"base_channels": "8", "multipliers": "1,2"}


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("network", ["red_net", "dn_cnn", "mwcnn"])
@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_networks_take_any_size_and_move_with_the_image(network: Any, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = convolutional_network(ConvolutionalArchitecture(network, 3, 4, 8))
    picture = torch.randn(2, 3, *size)
    with torch.no_grad():
        found = model(picture)
        assert found.shape == picture.shape
        if size == (16, 16):
            torch.testing.assert_close(model(picture.roll((4, 8), (-2, -1))), found.roll((4, 8), (-2, -1)))


def test_haar_pooling_is_orthonormal() -> None:
    picture = torch.randn(2, 3, 8, 12)
    bands = haar_bands(picture)
    assert bands.shape == (2, 12, 4, 6)
    torch.testing.assert_close(bands.square().sum(), picture.square().sum())
    torch.testing.assert_close(from_haar_bands(bands), picture)


class Scale(torch.nn.Module):
    """Stands for a network: multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, array: Tensor, sigma: Tensor | None = None) -> Tensor:
        return self.factor * array


@pytest.mark.parametrize(("domain", "channels"), [("replicas", 3), ("replicas", 1), ("wavelet", 8)])
def test_each_array_goes_to_the_network_of_its_level(domain: Any, channels: int) -> None:
    options = FixedLevelOptions(ConvolutionalArchitecture("dn_cnn", channels, 4, 8), (0.01, 0.1), domain)
    model = FixedLevelDenoiser(options)
    model.networks[0], model.networks[1] = Scale(0.5), Scale(0.25)
    prior = DenoiserPrior(model, options.make_domain(), SigmaLevels(options.levels), bf16=False)
    m = prior.domain.encode(white(3, 1, 8, 8))
    found = prior.denoise(m, torch.tensor([0.01, 0.1, 0.02]))
    torch.testing.assert_close(found, m * torch.tensor([0.5, 0.25, 0.5])[:, None, None, None, None])


def test_the_bands_of_an_image_denoiser() -> None:
    x = white(2, 8, 8)
    model = OfBands(Scale(0.5))
    m = WaveletDomain().encode(x)
    torch.testing.assert_close(model(m, torch.ones(2)), 0.5 * m)
    # What is not in the range of the transform is noise, which goes.
    noise = white(2, 4, 8, 8, seed=1)
    noise -= WaveletDomain().encode(WaveletDomain().decode(noise, x))
    torch.testing.assert_close(model(m + noise, torch.ones(2)), 0.5 * m)


def data() -> TrainingSet:
    images = white(3, 24, 24)
    return TrainingSet(images / images.abs().amax((1, 2), keepdim=True), images[:0], None, "of noise")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Prior of a system and variant after two steps of training, and its card."""
    kept: dict[str, tuple[DenoiserPrior, ModelCard]] = {}

    def of(name: str) -> tuple[DenoiserPrior, ModelCard]:
        method = generative_method(name)
        source = name if method.recipe is not None else method.takes
        if source not in kept:
            entry = generative_method(source)
            assert entry.recipe is not None
            options = entry.recipe.options()
            tiny = TINY | (OF_FIXED if hasattr(options, "options") else OF_UNET)
            run = Run(Path(tmp_path_factory.mktemp("run")), torch.device("cpu"))
            done = entry.recipe.train(with_settings(options, tiny), data(), run)
            card = ModelCard(
                kind=source, options=done.options, name="tiny", typical_gain=done.typical_gain, training_data="noise",
                training_data_sha256="0" * 64, steps=done.steps, date="2026-01-01", licence="MIT", intended_use="tests",
                quality=done.quality,
            )  # fmt: skip
            kept[source] = entry.load(card, done.weights), card
        prior, card = kept[source]
        weights = {key: value.clone() for key, value in prior.model.state_dict().items()}
        return method.load(card, weights), card

    return of


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", ":published"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains_loads_and_reconstructs(system: str, variant: str, trained: Any) -> None:
    method = generative_method(system + variant)
    prior, card = trained(system + variant)
    prior.bf16 = False
    assert card.quality and all("error / sigma" in name for name in card.quality)
    kspace = fft2c(white(2, 1, 24, 24)) / 10
    mask = torch.rand(24, 24, generator=torch.Generator().manual_seed(1)) < 0.5
    settings = replace(ReconstructionSettings(**method.settings), steps=3)
    result = reconstruct(kspace * mask, mask, None, prior, settings, noise=0.01)
    assert result.finished == 1
    if variant:
        torch.testing.assert_close(result.kspace[0] * mask, kspace * mask)
        assert isinstance(prior.domain, WaveletDomain if system == "wdaep" else ReplicaDomain)
        assert not prior.sigma_levels.continuous
    else:
        assert isinstance(prior.domain, WaveletDomain if system == "wdaep" else ImageDomain)


def test_cards_of_other_systems_are_refused(trained: Any) -> None:
    _, card = trained("edaep:published")
    with pytest.raises(ValueError, match=r"unknown|missing"):
        load_of_bands(card, {})
    with pytest.raises(ValueError, match="wavelet bands have 8"):
        load_fixed_levels(replace(card, options=card.options | {"domain": "wavelet"}), {})
    with pytest.raises(ValueError, match="there is no variant 'original'; take published, or none"):
        generative_method("daep:original")
    with pytest.raises(ValueError, match="method wkgm: there is no variant 'published'; it has none"):
        generative_method("wkgm:published")
