"""Few steps and the predictor-corrector against a Gaussian prior, whose posterior is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from priors.learning.noise_schedule import geometric_sigmas
from priors.prior import Prior, expand_sigma
from priors.rules.few_step import few_step
from priors.rules.noise import SliceNoise
from priors.rules.predictor_corrector import predictor_corrector

SIZE, REPLICATES = 6, 8000
SPREAD, NOISE = 0.7, 0.5


class Gaussian(Prior):
    """White complex Gaussian around a mean, `SPREAD` in each of the real and imaginary parts; counts its calls."""

    def __init__(self, mean: torch.Tensor) -> None:
        self.mean = mean
        self.calls = 0

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        self.calls += 1
        variance = expand_sigma(sigma, m) ** 2
        return (SPREAD**2 * m + variance * self.mean) / (SPREAD**2 + variance)


class Posterior(Prior):
    """Prior and data in one: its denoised estimate is the mean of the clean array given noisy array and data."""

    def __init__(self, prior: Prior, consistency: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.prior = prior
        self.consistency = consistency

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return self.consistency(self.prior.denoise(m, sigma), torch.as_tensor(sigma) ** 2)


def random_array(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def as_it_is(estimate: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return estimate


def white(seed: int = 0, entries: int = 1) -> SliceNoise:
    return SliceNoise(seed, 0, range(entries), torch.device("cpu"))


class Problem:
    """Half of the samples of a random unitary transform of a vector, with noise; many replicates of the vector.

    The posterior has the covariance U^H diag(v) U (which couples all entries) with v = (1 / s^2 + P / n^2)^-1 in each
    of the real and imaginary parts, and the mean m + U^H v P (y - U m) / n^2.
    """

    def __init__(self) -> None:
        self.unitary = torch.linalg.qr(random_array(SIZE, SIZE))[0]
        self.mask = torch.tensor([1.0, 0, 1, 0, 0, 1])
        self.prior = Gaussian(random_array(SIZE, seed=1))
        self.data = random_array(SIZE, seed=2)
        self.initial = torch.zeros(1, REPLICATES, SIZE, dtype=torch.complex64)
        variance = 1 / (1 / SPREAD**2 + self.mask / NOISE**2)
        self.covariance = 2 * self.unitary.mH @ torch.diag(variance + 0j) @ self.unitary
        residual = self.data - self.unitary @ self.prior.mean
        self.mean = self.prior.mean + self.unitary.mH @ (variance * self.mask / NOISE**2 * residual)

    def consistency(self, estimate: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Proximal step with the variance of a clean array around its denoised estimate."""
        variance = 1 / (1 / SPREAD**2 + 1 / float(step))
        gain = self.mask * variance / (variance + NOISE**2)
        kspace = estimate @ self.unitary.T
        return (kspace + gain * (self.data - kspace)) @ self.unitary.conj()

    def deviation(self, samples: torch.Tensor) -> tuple[float, float]:
        """Largest error of the mean in prior standard deviations and of the covariance in prior variances."""
        vectors = samples.reshape(-1, SIZE)
        mean = vectors.mean(0)
        centred = vectors - mean
        covariance = centred.T @ centred.conj() / len(vectors)
        error = (covariance - self.covariance).abs().max() / (2 * SPREAD**2)
        return float((mean - self.mean).abs().max() / (math.sqrt(2) * SPREAD)), float(error)


# Four standard deviations of the Monte Carlo error of a mean and of a covariance over the replicates.
MONTE_CARLO = 4 / math.sqrt(REPLICATES)


def test_thirty_evaluations_sample_the_posterior() -> None:
    problem = Problem()
    samples = few_step(
        problem.prior,
        problem.initial,
        geometric_sigmas(5e-3, 60, 30),
        problem.consistency,
        white(),
        retained=1.0,
        extrapolation=0.5,
    )
    assert samples.shape == (1, REPLICATES, SIZE)
    assert problem.prior.calls == 30
    mean, covariance = problem.deviation(samples)
    assert mean < MONTE_CARLO + 0.01
    assert covariance < MONTE_CARLO + 0.02


def test_second_order_is_nearer_for_the_same_evaluations() -> None:
    problem = Problem()
    errors = [
        problem.deviation(
            few_step(
                problem.prior,
                problem.initial,
                geometric_sigmas(5e-3, 60, 30),
                problem.consistency,
                white(),
                retained=1.0,
                extrapolation=extrapolation,
            )
        )[1]
        for extrapolation in (0.0, 0.5)
    ]
    assert errors[1] < 0.4 * errors[0]


def test_injected_noise_samples_the_posterior() -> None:
    problem = Problem()
    sigmas = geometric_sigmas(5e-3, 60, 300)
    ratio = float(sigmas[1] / sigmas[0])
    samples = few_step(
        problem.prior,
        problem.initial,
        sigmas,
        problem.consistency,
        white(),
        retained=ratio,
        injected=math.sqrt(1 - ratio**2),
    )
    mean, covariance = problem.deviation(samples)
    assert mean < MONTE_CARLO + 0.01
    assert covariance < MONTE_CARLO + 0.03


def test_without_noise_the_result_is_the_mode() -> None:
    problem = Problem()
    results = [
        few_step(
            problem.prior, problem.initial[:, :1], geometric_sigmas(0.05, 5, 200), problem.consistency, white(seed)
        )
        for seed in range(2)
    ]
    torch.testing.assert_close(results[0][0, 0], problem.mean, rtol=0, atol=0.02)
    assert torch.equal(*results)


@pytest.mark.slow
@pytest.mark.parametrize("realisations", [1, 3])
def test_predictor_corrector_samples_the_posterior(realisations: int) -> None:
    problem = Problem()
    samples = predictor_corrector(
        Posterior(problem.prior, problem.consistency),
        problem.initial,
        geometric_sigmas(5e-3, 60, 200),
        as_it_is,
        white(),
        realisations=realisations,
    )
    assert problem.prior.calls == 199 * (1 + realisations) + 1
    mean, covariance = problem.deviation(samples)
    assert mean < MONTE_CARLO + 0.01
    assert covariance < MONTE_CARLO + 0.03


def test_predictor_corrector_with_replaced_samples() -> None:
    prior = Gaussian(random_array(SIZE, seed=1))
    mask, data = torch.tensor([True, False, True, False, False, True]), random_array(SIZE, seed=2)
    samples = predictor_corrector(
        prior,
        torch.zeros(1, REPLICATES, SIZE, dtype=torch.complex64),
        geometric_sigmas(5e-3, 60, 200),
        lambda state, variance: torch.where(mask, data, state),
        white(),
        realisations=1,
    ).reshape(-1, SIZE)
    assert torch.equal(samples[:, mask], data[mask].expand(REPLICATES, -1))
    free = samples[:, ~mask]
    torch.testing.assert_close(free.mean(0), prior.mean[~mask], rtol=0, atol=MONTE_CARLO + 0.01)
    torch.testing.assert_close(free.var(0), torch.full((3,), 2 * SPREAD**2), rtol=MONTE_CARLO + 0.03, atol=0)


@pytest.mark.parametrize("snr", [0.0, 0.3])
def test_langevin_corrects_a_wrong_predictor(snr: float) -> None:
    """From far off, at one level, only the corrector brings the distribution back."""
    prior = Gaussian(torch.zeros(SIZE, dtype=torch.complex64))
    samples = predictor_corrector(
        prior,
        torch.full((1, 2000, SIZE), 3.0 + 0j),
        torch.tensor([1.001, 1.0]),
        as_it_is,
        white(),
        snr=snr,
        corrector_steps=100,
        realisations=1,
    )
    assert (samples.mean().abs() < 0.05) == (snr > 0)


def test_one_level_of_the_predictor_corrector_is_that_of_the_papers() -> None:
    score, high, low, snr = torch.tensor([2.0, -1.0, 0.5]), 1.0, 0.8, 0.1

    class Slope(Prior):
        """Prior of the same score everywhere."""

        def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
            return m + float(sigma) ** 2 * score

    result = predictor_corrector(
        Slope(),
        torch.zeros(1, 3),
        torch.tensor([high, low], dtype=torch.float64),
        as_it_is,
        white(3),
        snr=snr,
        realisations=2,
    )
    noise = white(3)
    start, predictor, first, second = (noise(torch.zeros(1, 3)) for _ in range(4))
    variance = high**2 - low**2
    expected = high * start + variance * score + math.sqrt(variance) * predictor
    step = 2 * (snr * math.sqrt(3) / score.norm()) ** 2
    assert step < low**2
    expected = expected + step * score + torch.sqrt(2 * step) * (first + second) / math.sqrt(2) + low**2 * score
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("sampler", [few_step, predictor_corrector])
def test_seeds_and_real_arrays(sampler: Callable[..., torch.Tensor]) -> None:
    prior, initial = Gaussian(torch.zeros(4, dtype=torch.complex64)), random_array(2, 3, 4)
    noisy: dict[str, Any] = {"retained": 0.6, "injected": 0.8} if sampler is few_step else {}
    sigmas = geometric_sigmas(0.1, 1, 5)
    first, again, other = (sampler(prior, initial, sigmas, as_it_is, white(seed, 2), **noisy) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    of_each = torch.stack((sigmas, 0.5 * sigmas), 1)
    both = sampler(prior, initial, of_each, as_it_is, white(5, 2), **noisy)
    torch.testing.assert_close(both[0], first[0])
    real = sampler(prior, initial.real, sigmas, lambda state, variance: state.real, white(entries=2), **noisy)
    assert not real.is_complex()


def test_noise_is_that_of_the_key_wherever_it_stands() -> None:
    like, cpu = random_array(3, 50, 50), torch.device("cpu")
    first = SliceNoise(1, 0, ["a", "b", "c"], cpu)(like)
    turned = SliceNoise(1, 0, ["c", "a", "b"], cpu)(like)
    assert torch.equal(first[[2, 0, 1]], turned)
    assert torch.equal(SliceNoise(1, 0, ["b"], cpu)(like[:1])[0], first[1])
    others = [SliceNoise(1, 1, ["a"], cpu)(like[:1])[0], SliceNoise(2, 0, ["a"], cpu)(like[:1])[0], first[1]]
    for other in others:
        correlation = (first[0].conj() * other).mean().abs() / 2
        assert float(correlation) < 0.1
    assert float(first.real.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("sampler", [few_step, predictor_corrector])
def test_stop_returns_what_there_is(sampler: Callable[..., torch.Tensor]) -> None:
    prior, initial = Gaussian(torch.zeros(4, dtype=torch.complex64)), random_array(1, 3, 4)
    sigmas = geometric_sigmas(0.01, 1, 50)
    answers = iter([False, False] + [True] * 100)
    assert sampler(prior, initial, sigmas, as_it_is, white(), stop=lambda: next(answers)).shape == initial.shape
    assert prior.calls < 20
    prior.calls = 0
    assert sampler(prior, initial, sigmas, as_it_is, white(), stop=lambda: True).shape == initial.shape
    assert 1 <= prior.calls < 10


@pytest.mark.parametrize("sampler", [few_step, predictor_corrector])
def test_empty_data_stay_finite(sampler: Callable[..., torch.Tensor]) -> None:
    class Nothing(Prior):
        def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
            return m

    sigmas, empty = geometric_sigmas(0.01, 1, 20), torch.zeros(1, 2, 4, 4)
    assert torch.equal(sampler(Nothing(), empty, sigmas, lambda state, variance: 0 * state, white()), empty)


def test_errors() -> None:
    prior, initial, sigmas = Gaussian(torch.zeros(4)), random_array(1, 4), geometric_sigmas(0.1, 1, 3)
    for sampler in (few_step, predictor_corrector):
        for wrong in ([], [1.0, 1.0], [0.5, 1.0], [1.0, 0.0], [math.nan], [math.inf, 1.0]):
            with pytest.raises(ValueError, match="noise levels"):
                sampler(prior, initial, torch.tensor(wrong), as_it_is, white())
    for retained, injected in ((1.1, 0.0), (0.0, -0.1), (0.8, 0.8)):
        with pytest.raises(ValueError, match="retained"):
            few_step(prior, initial, sigmas, as_it_is, white(), retained=retained, injected=injected)
    for values in ({"snr": -1.0}, {"snr": math.nan}, {"corrector_steps": -1}, {"realisations": 0}):
        with pytest.raises(ValueError, match="snr"):
            predictor_corrector(prior, initial, sigmas, as_it_is, white(), **values)  # type: ignore[arg-type]
