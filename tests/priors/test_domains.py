"""Domains: there and back, the metric that data steps use, and symmetries."""

from __future__ import annotations

import pytest
import torch

from priors.domains import Domain, ImageDomain, ReplicaDomain, WaveletDomain, WeightedKspaceDomain, turned
from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting

DOMAINS: list[Domain] = [ImageDomain(), ReplicaDomain(3), WaveletDomain(), WeightedKspaceDomain(Weighting())]


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("shape", [(12, 16), (9, 11)])
def test_there_and_back(domain: Domain, shape: tuple[int, int]) -> None:
    x = images(2, 1, *shape)
    torch.testing.assert_close(domain.decode(domain.encode(x), x), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_metric_is_the_squared_distance(domain: Domain) -> None:
    x = images(1, 1, 9, 12)
    in_kspace = (domain.metric(9, 12, x.device) * fft2c(x).abs().square()).sum()
    torch.testing.assert_close(domain.encode(x).abs().square().sum(), in_kspace)


@pytest.mark.parametrize("domain", DOMAINS)
def test_noise_keeps_its_level_in_the_spectrum(domain: Domain) -> None:
    m = images(1, 1, 64, 64)
    spectrum = domain.spectrum(m)
    if spectrum is not None:
        assert float(spectrum.std()) == pytest.approx(float(m.std()), rel=1e-3)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
def test_symmetries_are_undone(domain: Domain, shape: tuple[int, int]) -> None:
    m = domain.encode(images(2, 1, *shape))
    for kind in range(8):
        torch.testing.assert_close(domain.symmetric(domain.symmetric(m, kind), kind, back=True), m)
    with pytest.raises(ValueError, match="symmetry 8"):
        ImageDomain().symmetric(m, 8)


def test_there_are_eight_symmetries() -> None:
    picture = torch.arange(16.0).reshape(4, 4)
    assert len({tuple(turned(picture, kind).flatten().tolist()) for kind in range(8)}) == 8


def test_what_weights_hide_comes_from_the_images() -> None:
    domain = WeightedKspaceDomain(Weighting())
    x, other = images(1, 1, 8, 8), images(1, 1, 8, 8, seed=1)
    found = fft2c(domain.decode(domain.encode(x), other))
    torch.testing.assert_close(found[..., 4, 4], fft2c(other)[..., 4, 4])
