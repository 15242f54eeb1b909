"""The systems of energies, densities and generators, with networks of seconds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from priors.energy import GradientStepEnergy
from priors.learning.autoencoder import Autoencoder, AutoencoderArchitecture
from priors.learning.autoregressive import PixelArchitecture, PixelNetwork
from priors.learning.cards import ModelCard
from priors.learning.flow import FlowArchitecture, GlowNetwork
from priors.learning.recipe import Run, Trained, TrainingSet, with_settings
from priors.learning.trainer import Trainer
from priors.prior import Prior, check_prior
from priors.reconstruct import reconstruct
from priors.registry import generative_method
from priors.settings import ReconstructionSettings
from priors.signal.fourier import fft2c

SYSTEMS = ("ebm", "vae", "gan", "pixelcnn", "glow")
TINY = {"settings.steps": "2", "settings.batch": "2", "settings.crop": "16", "warm_up": "0"}
OF_KIND = {
    "ebm": {"base_channels": "8", "multipliers": "1,2"},
    "ebm:published": {"width": "2", "langevin_steps": "2"},
    "vae": {"width": "4"},
    "vae:published": {"width": "4", "settings.crop": "28"},
    "gan": {"latents": "4", "width": "2"},
    "pixelcnn": {"width": "4", "blocks": "1", "components": "2"},
    "glow:published": {"width": "4", "levels": "2", "depth": "2"},
}
OF_KIND["glow"] = OF_KIND["glow:published"]


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def trained(kind: str, folder: Path, size: int = 32) -> tuple[Trained, ModelCard]:
    method = generative_method(kind)
    kind = kind if method.recipe is not None else method.takes
    recipe = generative_method(kind).recipe
    assert recipe is not None
    images = white(3, size, size)
    data = TrainingSet(images / images.abs().amax((1, 2), keepdim=True), images[:0], None, "of noise")
    done = recipe.train(with_settings(recipe.options(), TINY | OF_KIND[kind]), data, Run(folder, torch.device("cpu")))
    card = ModelCard(
        kind=kind, options=done.options, name="tiny", typical_gain=None, training_data="noise",
        training_data_sha256="0" * 64, steps=done.steps, date="2026-01-01", licence="MIT", intended_use="tests",
        quality=done.quality,
    )  # fmt: skip
    return done, card


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name + variant for name in SYSTEMS for variant in ("", ":published")])
def test_every_system_trains_loads_and_reconstructs(kind: str, tmp_path: Path) -> None:
    method = generative_method(kind)
    done, card = trained(kind, tmp_path)
    assert card.quality and all(math.isfinite(value) for value in card.quality.values())
    prior: Prior = method.load(card, done.weights)
    check_prior(prior)
    kspace = fft2c(white(2, 1, 32, 32)) / 10
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    settings = replace(ReconstructionSettings(**method.settings), steps=2)
    result = reconstruct(kspace * mask, mask, None, prior, settings, noise=0.01)
    assert result.finished == 1 and bool(torch.isfinite(torch.view_as_real(result.kspace)).all())
    alone = reconstruct(kspace[1:] * mask, mask, None, prior, settings, noise=0.01, keys=[1])
    torch.testing.assert_close(alone.kspace, result.kspace[:, 1:], rtol=1e-3, atol=1e-4)  # in any batch


def test_the_gradient_step_is_that_of_the_energy(tmp_path: Path) -> None:
    done, card = trained("ebm", tmp_path)
    prior = generative_method("ebm").load(card, done.weights)
    assert isinstance(prior, GradientStepEnergy)
    m = white(2, 1, 8, 8) / 10
    step = white(2, 1, 8, 8, seed=1) / 10
    sigma = torch.tensor([0.1, 0.2])[:, None, None, None]
    slope = (prior.score(m, sigma.flatten()).conj() * step).real.flatten(1).sum(1)
    change = (prior.energy(m - 1e-3 * step, sigma) - prior.energy(m + 1e-3 * step, sigma)) / 2e-3
    torch.testing.assert_close(change, slope, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_flow_is_inverted_and_its_jacobian_known(channels: int) -> None:
    torch.manual_seed(0)
    model = GlowNetwork(FlowArchitecture(channels, 2, 2, 4))
    for parameter in model.parameters():  # couplings begin as nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = white(2, 8, 8) / 10
    if channels == 1:
        x = x.abs().to(x.dtype)
    z, log_jacobian = model.encode(x)
    torch.testing.assert_close(model.decode(z), x, rtol=1e-3, atol=1e-4)

    def flat(real: Tensor) -> Tensor:
        parts = real.reshape(channels, 8, 8)
        image = torch.complex(parts[0], parts[-1] if channels == 2 else torch.zeros(8, 8))
        return torch.cat([part.flatten() for part in model.encode(image[None])[0]])

    real = torch.stack((x[0].real, x[0].imag))[:channels].flatten()
    jacobian = torch.autograd.functional.jacobian(flat, real)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_jacobian[0], rtol=1e-3, atol=1e-2)


def test_a_pixel_is_given_those_before_it_alone() -> None:
    torch.manual_seed(0)
    model = PixelNetwork(PixelArchitecture(4, 2, 2)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    seen: list[Tensor] = []
    model.leave.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = (white(1, 7, 9) / 10).requires_grad_()
    model(x)
    place = (3, 4)
    (gradient,) = torch.autograd.grad(seen[0][0, :, place[0], place[1]].sum(), x)
    order = torch.arange(63).reshape(7, 9)
    used = gradient[0].abs() > 0
    assert not used[order >= int(order[place])].any()
    assert used[2, 2:7].all() and used[3, 2:4].all()  # above, on both sides, and to the left


def test_the_density_of_a_pixel_integrates_to_one() -> None:
    torch.manual_seed(0)
    model = PixelNetwork(PixelArchitecture(4, 1, 2)).eval()
    axis = torch.linspace(-1.5, 1.5, 301)
    grid = torch.complex(*torch.meshgrid(axis, axis, indexing="ij")).reshape(-1, 1, 1)
    with torch.no_grad():
        total = float(model(grid).exp().sum() * (axis[1] - axis[0]) ** 2)
    assert total == pytest.approx(1, abs=0.02)


def test_the_bound_of_an_autoencoder_that_knows_nothing() -> None:
    model = Autoencoder(AutoencoderArchitecture(width=4)).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    x = white(2, 16, 16) / 10
    parts = 10 * torch.view_as_real(x)
    expected = -0.5 * (parts.square() + math.log(2 * math.pi)).flatten(1).sum(1) + parts[0].numel() * math.log(10)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["glow", "vae", "gan", "ebm"])
def test_a_resumed_training_is_the_uninterrupted_one(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole, _ = trained(kind, tmp_path / "whole")
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, progress=None: run(self, progress, until=1))
    trained(kind, tmp_path / "parts")
    monkeypatch.setattr(Trainer, "run", run)
    parts, _ = trained(kind, tmp_path / "parts")
    for name, value in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], value, rtol=0, atol=0)
