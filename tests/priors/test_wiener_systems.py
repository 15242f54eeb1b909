"""Every system, published and newer, with a Gaussian in place of its network: its class, domain, rule and options.

What a system's rule ends at is known then; it is the Wiener solution of the prior that the rule stands for. Left out is
`glow:published`: the norm of its latent is not squared and its optimiser is stopped early, which no Gaussian has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from priors import gan
from priors.denoiser import DenoiserPrior
from priors.density import NetworkDensity
from priors.domains import Domain, ImageDomain, ReplicaDomain, WaveletDomain
from priors.energy import ContrastiveEnergy, ContrastiveOptions, GradientStepEnergy
from priors.fixed_levels import FixedLevelDenoiser, FixedLevelOptions
from priors.gan import GeneratorPrior
from priors.glow import GlowLatentPrior
from priors.image_denoiser import OfBands
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.energy_networks import EnergyArchitecture
from priors.learning.flow import FlowArchitecture, GlowNetwork
from priors.prior import Prior, SigmaLevels
from priors.reconstruct import Loop
from priors.registry import METHODS, generative_method, with_variant
from priors.signal.fourier import fft2c, ifft2c
from priors.vae import PRIOR_STEPS, RATE, PatchPrior
from tests.priors.linear_problems import LAST, SIZE, Problem, coloured, levels, no_noise, white

RANGE = SigmaLevels((1e-3, 30.0), True)
TWO = (0.7, LAST)


def filtered(images: Tensor, factors: Tensor) -> Tensor:
    """Images with the samples of their k-space multiplied."""
    return ifft2c(factors * fft2c(images))


class Wiener(nn.Module):
    """Mean of W x given m = W x + n, of Gaussian images x; by what m tells about the image."""

    def __init__(self, domain: Domain, variance: Tensor) -> None:
        super().__init__()
        self.domain, self.variance = domain, variance

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        bands = noisy if isinstance(self.domain, ImageDomain) else noisy[:, None]
        images = self.domain.decode(bands, bands)
        level = sigma.reshape(-1, 1, 1, 1) ** 2 / self.domain.metric(*noisy.shape[-2:], noisy.device)
        found = self.domain.encode(filtered(images, self.variance / (self.variance + level)))
        return found.reshape(noisy.shape)


class OfPlanes(nn.Module):
    """The same at one level, of real planes as the networks of fixed levels see them."""

    def __init__(self, domain: Domain, variance: Tensor, sigma: float) -> None:
        super().__init__()
        self.wiener, self.sigma = Wiener(domain, variance), sigma

    def forward(self, planes: Tensor) -> Tensor:
        level = torch.full((len(planes),), self.sigma)
        if isinstance(self.wiener.domain, ReplicaDomain):  # real or imaginary parts alone
            found: Tensor = self.wiener(planes.to(torch.complex64), level).real
            return found
        pair = planes.unflatten(1, (-1, 2))
        return (
            torch.view_as_real(self.wiener(torch.complex(pair[:, :, 0], pair[:, :, 1]), level))
            .movedim(-1, 2)
            .flatten(1, 2)
        )


def of_fixed_levels(domain: Domain, name: Any, channels: int) -> Prior:
    options = FixedLevelOptions(ConvolutionalArchitecture("dn_cnn", channels, 2, 1), TWO, name)
    model = FixedLevelDenoiser(options)
    for index, sigma in enumerate(TWO):
        model.networks[index] = OfPlanes(domain, coloured(), sigma)
    return DenoiserPrior(model, options.make_domain(), SigmaLevels(TWO), bf16=False)


def of_one_level(prior: Prior, level: float = LAST) -> Prior:
    prior.sigma_levels = SigmaLevels((level,))
    return prior


class EnergyNetworkOfGaussian(nn.Module):
    """Energy of which a step of length 1 is the Wiener filter at LAST."""

    def forward(self, images: Tensor) -> Tensor:
        factor = LAST**2 / (coloured() + LAST**2)
        return 0.5 * (factor * fft2c(images).abs().square()).flatten(1).sum(1)


class LogDensity(nn.Module):
    """Log density of Gaussian images."""

    def forward(self, images: Tensor) -> Tensor:
        return -0.5 * (fft2c(images).abs().square() / coloured()).flatten(1).sum(1)


class Psi(nn.Module):
    """What makes the gradient step of its energy the Wiener filter, 1 - (1 - psi)^2."""

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, 1, 1, 1)
        return filtered(noisy, 1 - level / (coloured() + level**2).sqrt())


PATCHES = 28  # pixels: patches of this size overlap by half
MAGNITUDE = 1.5e-3  # variance of a pixel's magnitude, so that ten steps of 1e-4 shrink it by half


class PatchDensity(nn.Module):
    def forward(self, patches: Tensor) -> Tensor:
        return -0.5 * patches.abs().square().flatten(1).sum(1) / MAGNITUDE


class LinearGenerator(nn.Module):
    """Images of 16 x 16 of as many latents, with the square root of the covariance."""

    latents = 2 * 16 * 16

    def forward(self, z: Tensor) -> Tensor:
        parts = z.reshape(-1, 2, 16, 16)
        return ifft2c(coloured(16).sqrt() * torch.complex(parts[:, 0], parts[:, 1]))


def precision_of(options: dict[str, float], levels_: tuple[float, ...], copies: float = 1.0) -> Tensor:
    """Precision of the prior that momentum stands for, of images' k-space; copies: the metric of the domain."""
    kept = [s**2 / copies / (coloured() + s**2 / copies) for s in (levels_ if options.get("all_levels") else (LAST,))]
    pulled = torch.stack([one ** (2 if options.get("jacobian") else 1) for one in kept]).mean(0)
    return copies * pulled / LAST**2


def smoothed(domain: Domain) -> Tensor:
    """Precision of the prior smoothed by the last level."""
    return 1 / (coloured() + LAST**2 / float(domain.metric(SIZE, SIZE, torch.device("cpu"))))


def case_of(name: str) -> tuple[Prior, Callable[[dict[str, float]], Tensor], int, float]:
    """Prior of a system, precision of what its rule ends at, image size, and scale of the data."""
    replicas, wavelet = ReplicaDomain(3), WaveletDomain()
    system = name.partition(":")[0]
    if name in ("daep:published", "dmsp:published"):
        prior = of_one_level(of_fixed_levels(ReplicaDomain(1), "replicas", 1))
        return prior, lambda options: precision_of(options, (LAST,)), SIZE, 1.0
    if name in ("edaep:published", "medmsp:published"):
        return of_fixed_levels(replicas, "replicas", 3), lambda options: precision_of(options, TWO, 3.0), SIZE, 1.0
    if name == "wdaep:published":
        return of_fixed_levels(wavelet, "wavelet", 8), lambda options: precision_of(options, TWO, 4.0), SIZE, 1.0
    if name == "hggdp:published":
        prior = DenoiserPrior(Wiener(replicas, coloured()), replicas, RANGE, bf16=False)
        return prior, lambda options: smoothed(replicas), SIZE, 1.0
    if system == "wdaep":
        prior = DenoiserPrior(OfBands(Wiener(ImageDomain(), coloured())), wavelet, RANGE, bf16=False)
        return prior, lambda options: smoothed(wavelet), SIZE, 1.0
    if system in ("daep", "edaep", "dmsp", "medmsp", "hggdp"):
        prior = DenoiserPrior(Wiener(ImageDomain(), coloured()), ImageDomain(), RANGE, bf16=False)
        return prior, lambda options: smoothed(ImageDomain()), SIZE, 1.0
    if name == "ebm":
        energy = GradientStepEnergy(Psi(), RANGE)  # type: ignore[arg-type]
        return energy, lambda options: smoothed(ImageDomain()), SIZE, 1.0
    if name == "ebm:published":
        options_ = ContrastiveOptions(EnergyArchitecture(width=2), LAST, 1.0)
        # Parts of images stay within -1 to 1.
        contrastive = ContrastiveEnergy(EnergyNetworkOfGaussian(), options_)  # type: ignore[arg-type]
        return contrastive, lambda options: smoothed(ImageDomain()), SIZE, 0.01
    if name == "vae:published":
        kept = (1 - RATE / MAGNITUDE) ** PRIOR_STEPS
        patches = PatchPrior(PatchDensity(), 0.0)
        return patches, lambda options: torch.full((PATCHES, PATCHES), (1 - kept) / LAST**2), PATCHES, 1.0
    if system in ("vae", "pixelcnn", "glow"):
        dual = generative_method(name).settings.get("rule_options", {}).get("dual", True)
        precision = (lambda options: 1 / coloured()) if dual else (lambda options: smoothed(ImageDomain()))
        return NetworkDensity(LogDensity(), 0.01), precision, SIZE, 1.0
    assert system == "gan"
    generated = coloured(16) / (coloured(16) + gan.PENALTY)
    prior = GeneratorPrior(LinearGenerator(), steps=250)  # type: ignore[arg-type]
    return prior, lambda options: (1 - generated) / LAST**2, 16, 1.0


OWN = [name for name in METHODS if name not in ("wkgm", "svd_wkgm", "hkgm")]  # those are of tests/priors/test_wiener.py
NAMES = [
    with_variant(name, variant) for name in OWN for variant in ("", *generative_method(name).variants)
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("glow:published", "gan")])
def test_every_system_ends_at_the_wiener_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan, "PENALTY", 0.5)
    settings = generative_method(name).settings
    rule, options = settings["sampler"], dict(settings.get("rule_options", {}))
    prior, precision, size, scale = case_of(name)
    problem = Problem("sense", prior.domain, size, scale)
    loop = Loop(prior, problem.step, symmetries=False)
    sigmas = levels(rule)
    if rule == "annealed":  # relaxation as published
        sigmas = torch.full((1800,), LAST, dtype=torch.float64)
    if isinstance(prior, GeneratorPrior):
        sigmas = sigmas[:15]
    found = loop.run(rule, loop.begin(), sigmas, no_noise, **options)
    wanted = problem.wiener(precision(options))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


def test_the_one_left_out_keeps_images_that_cost_nothing() -> None:
    torch.manual_seed(0)
    prior = GlowLatentPrior(GlowNetwork(FlowArchitecture(1, 2, 2, 4)), gamma=0.0)
    m = white(1, 1, SIZE, SIZE, seed=1) / 10
    torch.testing.assert_close(prior.prox(m, 1.0), m, rtol=1e-3, atol=1e-4)
