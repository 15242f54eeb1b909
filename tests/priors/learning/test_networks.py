"""U-Net and preconditioning."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from priors.learning.networks import Architecture, EdmDenoiser, channels_last
from priors.signal.fourier import fft2c, ifft2c

SMALL: dict[str, Any] = {"base_channels": 8, "multipliers": (1, 2, 2), "groups": 4}


def random_array(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def trained(architecture: Architecture) -> EdmDenoiser:
    """Model whose last layers are not zero, as training leaves it."""
    torch.manual_seed(0)
    model = EdmDenoiser(architecture)
    for parameter in model.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (5, 12), (3, 1)])
def test_any_matrix_size(copies: int, shuffle: int, shape: tuple[int, int]) -> None:
    model = trained(Architecture(**SMALL, copies=copies, shuffle=shuffle))
    noisy = random_array(2, copies, *shape)
    result = model(noisy, torch.tensor([0.1, 1.0]))
    assert result.shape == noisy.shape
    assert result.dtype == torch.complex64
    assert bool(torch.isfinite(torch.view_as_real(result)).all())


def test_shuffled_pixels_come_back_to_their_places() -> None:
    model = trained(Architecture(**SMALL, parameterisation="image", shuffle=2))
    noisy, sigma = random_array(1, 1, 32, 32), torch.tensor([0.1])
    moved = model(noisy.roll((8, 16), (-2, -1)), sigma)  # whole squares on every level
    inner = (..., slice(12, 20), slice(20, 28))  # what the border's zeros reach least
    expected = model(noisy, sigma).roll((8, 16), (-2, -1))
    assert (moved - expected)[inner].norm() < 0.1 * expected[inner].norm()
    with pytest.raises(ValueError, match="shuffle 5 is not a whole number from 1 to 4"):
        Architecture(shuffle=5)


def test_fourier_conjugate_is_the_kspace_model_between_two_transforms() -> None:
    conjugate = trained(Architecture(**SMALL))
    direct = trained(Architecture(**SMALL, parameterisation="kspace"))
    direct.load_state_dict(conjugate.state_dict())
    noisy, sigma = random_array(2, 1, 13, 16), torch.tensor([0.02, 0.3])
    expected = fft2c(direct(ifft2c(noisy), sigma))
    torch.testing.assert_close(conjugate(noisy, sigma), expected, rtol=1e-4, atol=1e-5)
    assert (direct(noisy, sigma) - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("parameterisation", ["kspace", "fourier_conjugate"])
def test_untrained_model_is_the_best_linear_shrinkage(parameterisation: Any) -> None:
    model = EdmDenoiser(Architecture(**SMALL, parameterisation=parameterisation, sigma_data=0.5))
    noisy, sigma = random_array(2, 1, 12, 12), torch.tensor([0.5, 1.5])
    shrinkage = torch.tensor([0.5, 0.1]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(model(noisy, sigma).detach(), shrinkage * noisy, rtol=1e-4, atol=1e-6)


def test_preconditioning_keeps_unit_variance() -> None:
    model = EdmDenoiser(Architecture(**SMALL, sigma_data=0.2))
    sigma = torch.tensor([0.001, 0.2, 5.0])
    skip, out, scale = (factor.flatten() for factor in model.preconditioning(sigma))
    torch.testing.assert_close(scale.square() * (sigma.square() + 0.04), torch.ones(3))
    # Variance of what the network has to give: (clean - c_skip noisy) / c_out.
    variance = ((1 - skip).square() * 0.04 + skip.square() * sigma.square()) / out.square()
    torch.testing.assert_close(variance, torch.ones(3), rtol=1e-4, atol=0)


def test_network_is_told_a_quarter_of_the_logarithm() -> None:
    model, seen = trained(Architecture(**SMALL, sigma_data=0.5)), []
    model.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    noisy = random_array(1, 1, 8, 8)
    model(noisy, torch.tensor([1.2]))
    picture, noise = seen[0]
    assert noise.item() == pytest.approx(math.log(1.2) / 4)
    image = ifft2c(noisy)[0] / 1.3
    torch.testing.assert_close(picture[0], torch.cat((image.real, image.imag)), rtol=1e-4, atol=1e-5)


def test_little_noise_changes_little() -> None:
    model = trained(Architecture(**SMALL, sigma_data=0.5))
    noisy = random_array(1, 1, 12, 12)
    assert (model(noisy, torch.tensor([1e-4])) - noisy).norm() < 1e-2 * noisy.norm()


def test_noise_level_conditions_the_network() -> None:
    network = trained(Architecture(**SMALL)).network
    picture = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    noise = torch.tensor([0.001, 0.0012, 0.3]).log() / 4
    near, far = network(picture, noise)[0], network(picture, noise)[2]
    close = network(picture, noise)[1]
    assert (near - far).norm() > 0.05 * near.norm()
    assert (near - close).norm() < (near - far).norm()


def test_batch_entries_do_not_mix_and_memory_order_does_not_matter() -> None:
    model = trained(Architecture(**SMALL))
    noisy, sigma = random_array(3, 1, 16, 20), torch.tensor([0.01, 0.1, 1.0])
    together = model(noisy, sigma)
    alone = torch.cat([model(noisy[i : i + 1], sigma[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(channels_last(model)(noisy, sigma), together, rtol=1e-3, atol=1e-4)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    model = EdmDenoiser(Architecture(**SMALL, blocks=2))
    for parameter in model.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    torch.view_as_real(model(random_array(2, 1, 16, 16), torch.tensor([0.03, 0.1]))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_size_of_the_default_network() -> None:
    assert sum(parameter.numel() for parameter in EdmDenoiser(Architecture()).parameters()) <= 4e6


@pytest.mark.parametrize(
    "values",
    [
        {"base_channels": 0},
        {"base_channels": 10**6},
        {"base_channels": 30},
        {"base_channels": True},
        {"multipliers": ()},
        {"multipliers": (1, 0)},
        {"multipliers": (1,) * 8},
        {"blocks": 0},
        {"copies": 1.5},
        {"parameterisation": "wavelet"},
        {"sigma_data": 0.0},
        {"sigma_data": "0.5"},
    ],
)
def test_errors(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="architecture"):
        Architecture(**values)
