"""Reconstruction with a score prior of weighted k-space: WKGM and svd-WKGM, with coil maps or calibrationless."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from priors.classical.posterior import cg_sense
from priors.data_consistency import SenseOperator, replace_samples, sense_proximal
from priors.learning.noise_schedule import geometric_sigmas
from priors.prior import Prior
from priors.sampling import few_step, predictor_corrector
from priors.signal.espirit import calibration_region, low_rank_maps
from priors.signal.fourier import fft2c, hann, ifft2c, low_resolution_phase, radial_frequency
from priors.signal.hankel import gram_matrix, low_rank_completion, low_rank_projection
from priors.signal.noise import noise_level
from priors.signal.weighting import Weighting
from priors.typicality import SIGNAL_LEVEL, denoising_gain, signal_level
from priors.wkgm import WeightedKspacePrior

ConsistencyName = Literal["auto", "sense", "low_rank", "replacement"]
KeepName = Literal["auto", "true", "false"]
SamplerName = Literal["few_step", "predictor_corrector"]
StartName = Literal["noise", "measured"]

FEW_STEPS = 25
QUIET = 0.007  # noise of the data, in the units of the priors, that images may keep
TRUST = 2.0  # of the prior in units of the weight that the data's misfit gives it; more where noise is above QUIET
SMALLEST_ERROR = 0.5  # of the prior in units of the noise of the data, whatever the misfit says
LOWEST_NOISE = 5e-4  # of the data, in the units of the priors
SMALLEST_WEIGHT = 1e-3  # of a coil map: below it there is none
UNEXPLAINED = 0.05  # fraction of the calibration signal from which on the coil maps are not trusted
SET_ENERGY = 1e-4  # fraction of the image energy below which a set of maps is left out
SMALLEST_SIGMA, LARGEST_SIGMA = 0.004, 0.5  # of schedules that the data decide
LAST_SIGMA = 1.6  # last noise level in units of that of the data
FEWEST_COILS = 3  # whose noise level is measured; that of fewer is an upper bound
LAST_SIGMA_OF_BOUND = 0.5  # last noise level in units of such a bound
LAST_SIGMA_OF_COILS = 0.002  # without coil maps, where low rank takes the noise out
INJECTED = 1.0  # fresh noise where several samples are wanted
RANK_THRESHOLD = 0.02  # of the largest singular value
FIRST_RANK = 0.5  # of the last one
MOST_UNKNOWNS = 2048  # of a row of the Hankel matrix; the window is smaller where the coils are many
FAINT = 0.1  # of the signal level: slices below it are not judged to be like or unlike the training images


@dataclass(frozen=True)
class GenerativeSettings:
    """How to sample.

    Parameters
    ----------
    low_rank : bool
        Use the Hankel low rank of multi-coil k-space (svd-WKGM): refines coil maps, or projects every estimate where
        there are none.
    data_consistency : {"auto", "sense", "low_rank", "replacement"}
        How estimates are made to agree with the data: by the SENSE proximal step with coil maps, coil by coil with
        Hankel low rank, or coil by coil without it. `auto` takes the coil maps where they explain the calibration
        data, else low rank.
    sampler : {"few_step", "predictor_corrector"}
        Few steps, or the published predictor-corrector.
    steps : int
        Noise levels; 0: 25, or 1000 for the predictor-corrector.
    start : {"noise", "measured"}
        What the predictor-corrector begins with: noise alone, as WKGM was published, or the zero-filled weighted
        k-space with noise, as HKGM was.
    sigma_max, sigma_min : float
        First and last noise level in the units of the prior; 0: by undersampling and by the noise of the data, or 1
        and 0.01 times the published weighting for the predictor-corrector.
    samples : int
        Posterior samples, each with a seed of its own; a single one of the few-step sampler adds no noise and looks
        for the most likely image.
    seed : int
        Seed of the first sample.
    keep_measured : {"auto", "true", "false"}
        Whether measured samples stand in the result as they were measured ("true"), or are weighted against the prior's
        by their noise, which takes it out of the image ("false"). `auto` weights them by what of their noise is above
        1.2 % of the signal level, and keeps those of less or of fewer than three coils, whose noise is not known.
    window : int
        Window of the Hankel matrix in samples; less where the matrix is smaller or has more than 2048 columns.
    rank : int
        Rank of the Hankel matrix, at most its columns; 0: from the singular values of the estimated k-space.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    low_rank: bool = False
    data_consistency: ConsistencyName = "auto"
    sampler: SamplerName = "few_step"
    start: StartName = "noise"
    steps: int = 0
    sigma_max: float = 0.0
    sigma_min: float = 0.0
    samples: int = 1
    seed: int = 0
    keep_measured: KeepName = "auto"
    window: int = 6
    rank: int = 0

    def __post_init__(self) -> None:
        if self.data_consistency not in get_args(ConsistencyName):
            raise ValueError(f"generative: data_consistency {self.data_consistency!r} is unknown")
        if self.keep_measured not in get_args(KeepName):
            raise ValueError(f"generative: keep_measured {self.keep_measured!r} is unknown")
        if self.sampler not in get_args(SamplerName):
            raise ValueError(f"generative: sampler {self.sampler!r} is unknown")
        if self.start not in get_args(StartName):
            raise ValueError(f"generative: start {self.start!r} is unknown")
        if min(self.steps, self.seed, self.rank) < 0 or min(self.samples, self.window) < 1:
            raise ValueError("generative: steps, seed and rank must be 0 or more, samples and window 1 or more")
        if not all(math.isfinite(value) and value >= 0 for value in (self.sigma_max, self.sigma_min)):
            raise ValueError("generative: sigma_max and sigma_min must be finite and 0 or more")
        if self.sigma_max and self.sigma_max <= self.sigma_min:
            raise ValueError(f"generative: sigma_max {self.sigma_max} is not above sigma_min {self.sigma_min}")


@dataclass
class GenerativeResult:
    """What a reconstruction found, and how.

    Parameters
    ----------
    kspace : Tensor
        Coil k-space, complex64, shape (sample, batch, coil, y, x), in the units of the data.
    consistency : str
        Data consistency that was used; "complete" for k-space without gaps.
    reason : str
        Why.
    noise : Tensor
        Noise level of the data that was used, in the units of the data, shape (batch,).
    evaluations : int
        Evaluations of the prior a slice, of all samples.
    finished : float
        Fraction of the steps that were done before a stop.
    warnings : list of list of str
        What users must know of each slice.
    """

    kspace: Tensor
    consistency: str
    reason: str
    noise: Tensor
    evaluations: int
    finished: float
    warnings: list[list[str]]


def generative(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor | None,
    prior: WeightedKspacePrior,
    settings: GenerativeSettings | None = None,
    *,
    noise: float | Tensor = 0.0,
    stop: Callable[[], bool] | None = None,
) -> GenerativeResult:
    r"""Reconstruct slices with a score prior of weighted k-space.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x), of signal level 1 (divided by `image_scale`).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    maps : Tensor, optional
        Coil maps, complex, shape (batch, set, coil, y, x), on the device of the k-space.
    prior : WeightedKspacePrior
        Trained prior, on the device of the k-space.
    settings : GenerativeSettings, optional
        How to sample.
    noise : float or Tensor
        Standard deviation of the noise of k-space in each of the real and imaginary parts, in the units of k-space,
        of all slices or of each, shape (batch,); 0: estimated from the data.
    stop : callable, optional
        Asked before every step but a sample's first; the best estimate so far is the result where it says True.

    Returns
    -------
    GenerativeResult
        Coil k-space of the samples, and how it was found.

    Raises
    ------
    ValueError
        If shapes do not fit, nothing was measured, coil maps are asked for and there are none, or noise levels that the
        settings give leave the range of the prior.
    FloatingPointError
        If the prior gave values that are not finite.

    Notes
    -----
    Estimates of weighted k-space :math:`k_w = w F (e^{-i \phi} x)` go in turn through the denoiser of the prior and
    through the data consistency, at falling noise levels (Tu et al., NMR in Biomedicine 2022; see `few_step`,
    `predictor_corrector`). The phase :math:`\phi` of the low-resolution image makes images nearly real, as those of the
    training were.
    """
    settings = settings or GenerativeSettings()
    sampled = _checked(kspace, mask, maps)
    if bool(sampled.all()) and settings.keep_measured != "false":
        warning = ["k-space is complete: there is nothing to sample"] if settings.samples > 1 else []
        level = torch.as_tensor(noise, dtype=torch.float32).expand(len(kspace))
        reason = "k-space has no gaps"
        return GenerativeResult(kspace[None].clone(), "complete", reason, level, 0, 1.0, [warning for _ in kspace])
    measured = SIGNAL_LEVEL * torch.where(sampled, kspace, 0)
    columns = min(settings.window, *kspace.shape[-2:], math.isqrt(MOST_UNKNOWNS // kspace.shape[1]))
    settings = replace(settings, window=max(columns, 1), rank=min(settings.rank, kspace.shape[1] * columns**2))
    levels = _noise(measured, sampled, SIGNAL_LEVEL * torch.as_tensor(noise, dtype=torch.float32))
    name, reason = choose_consistency(settings, measured, sampled, maps, levels)
    last = LAST_SIGMA_OF_COILS
    if name == "sense":
        ratio = LAST_SIGMA if kspace.shape[1] >= FEWEST_COILS else LAST_SIGMA_OF_BOUND
        last = max(float(ratio * levels.mean()), SMALLEST_SIGMA)
    sigmas = _noise_levels(settings, prior, measured.shape[1], sampled, last)
    few = settings.sampler == "few_step"
    steps = len(sigmas) if few else 2 * len(sigmas) - 1  # calls of the data consistency
    expected = len(sigmas) if few else 4 * (len(sigmas) - 1) + 1  # evaluations of the prior a sample
    counted = _Counted(prior)
    results: list[Tensor] = []
    for sample in range(settings.samples):
        if results and stop is not None and stop():
            break
        consistency: _Consistency
        if name == "sense":
            assert maps is not None
            consistency = SenseConsistency(prior, measured, sampled, maps, levels, settings, steps)
        else:
            consistency = CoilConsistency(prior, measured, sampled, levels, settings, name == "low_rank", steps)
        initial, before = consistency.begin(), counted.evaluations
        seed = settings.seed + sample
        if few:
            injected = INJECTED if settings.samples > 1 else 0.0
            few_step(counted, initial, sigmas, consistency, injected=injected, seed=seed, stop=stop)
        else:
            first = consistency.zero_filled() if settings.start == "measured" else torch.zeros_like(initial)
            predictor_corrector(counted, first, sigmas, consistency, seed=seed, stop=stop)
        if results and counted.evaluations - before < expected:
            break  # a sample that was stopped is no sample of the posterior
        results.append(consistency.kspace / SIGNAL_LEVEL)
        last_images = consistency.image(consistency.kspace), consistency.image(consistency.weighted_kspace())
    result = torch.stack(results)
    if not bool(torch.isfinite(torch.view_as_real(result)).all()):
        raise FloatingPointError("generative: the prior gave values that are not finite")
    finished = counted.evaluations / (expected * settings.samples)
    evaluations = counted.evaluations
    warnings: list[list[str]] = [[] for _ in kspace]
    if prior.typical_gain is not None and (stop is None or not stop()):
        evaluations += 2
        warnings = _unlike(prior, *last_images, prior.typical_gain)
    return GenerativeResult(result, name, reason, levels / SIGNAL_LEVEL, evaluations, finished, warnings)


def choose_consistency(
    settings: GenerativeSettings, kspace: Tensor, mask: Tensor, maps: Tensor | None, noise: Tensor
) -> tuple[ConsistencyName, str]:
    """Data consistency that the settings mean for slices of one scan, and why.

    Parameters
    ----------
    settings : GenerativeSettings
        Of which `data_consistency` is looked at.
    kspace, mask, maps : Tensor
        As `generative` takes them.
    noise : Tensor
        Noise level of every slice, shape (batch,), in the units of `kspace`.

    Returns
    -------
    (str, str)
        "sense", "low_rank" or "replacement", and the reason.

    Raises
    ------
    ValueError
        If coil maps are asked for and there are none.
    """
    wanted = settings.data_consistency
    if wanted == "sense" and maps is None:
        raise ValueError("generative: data_consistency is sense, but there are no coil maps")
    if wanted != "auto":
        return wanted, "as asked for"
    if maps is None:
        return "low_rank", "no coil maps"
    left = unexplained_fraction(kspace, mask, maps, noise)
    text = f"coil maps leave {left:.1%} of the calibration signal"
    return ("low_rank", text) if left > UNEXPLAINED else ("sense", text)


def _checked(kspace: Tensor, mask: Tensor, maps: Tensor | None) -> Tensor:
    """The mask as bool (batch, 1, y, x). Raises ValueError where arrays do not fit or there is nothing in them."""
    if kspace.ndim != 4 or not kspace.is_complex():
        raise ValueError(f"generative: k-space of shape {tuple(kspace.shape)} is not complex (batch, coil, y, x)")
    shape = (len(kspace), 1, *kspace.shape[-2:])
    try:
        sampled = mask.to(device=kspace.device, dtype=torch.bool).expand(shape)
    except RuntimeError:
        raise ValueError(f"generative: mask of shape {tuple(mask.shape)} does not fit {shape}") from None
    if maps is not None and (maps.ndim != 5 or (len(maps), *maps.shape[2:]) != tuple(kspace.shape)):
        raise ValueError(
            f"generative: coil maps of shape {tuple(maps.shape)} are not (batch, set, coil, y, x) for k-space of "
            f"{tuple(kspace.shape)}"
        )
    if not bool(sampled.any()) or not bool((kspace != 0).any()):
        raise ValueError("generative: no sample of k-space was measured; there is nothing to reconstruct from")
    return sampled


def _noise(measured: Tensor, mask: Tensor, given: Tensor) -> Tensor:
    """Noise level of every slice, (batch,), as given or else estimated."""
    if not bool((given > 0).all()):
        given = torch.tensor(noise_level(measured, mask))
    return given.to(measured.device).clamp_min(LOWEST_NOISE).expand(len(measured))


class _Counted(Prior):
    """A prior that counts its evaluations."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.evaluations = 0

    def denoise(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        self.evaluations += 1
        return self.prior.denoise(image, sigma)


class _Consistency(ABC):
    """Data consistency of an estimate of weighted k-space; `kspace` is the coil k-space that it last led to."""

    kspace: Tensor  # (batch, coil, y, x)

    def __init__(
        self, prior: WeightedKspacePrior, measured: Tensor, mask: Tensor, noise: Tensor, settings: GenerativeSettings
    ) -> None:
        self._prior, self._measured, self._mask = prior, measured, mask
        self._noise, self._settings = noise, settings
        self._quiet = QUIET if measured.shape[1] >= FEWEST_COILS else math.inf
        self._step = 0
        self._last = measured, torch.zeros_like(mask, dtype=torch.float32)  # estimate and misfit
        self._phase: Tensor | None = None
        self._unweighted = torch.empty(0)  # k-space without phase of the last step, for the samples of weight zero

    @abstractmethod
    def begin(self) -> Tensor:
        """Weighted k-space of a first estimate."""

    @abstractmethod
    def zero_filled(self) -> Tensor:
        """Weighted k-space of the measured samples alone, after `begin`."""

    @abstractmethod
    def image(self, kspace: Tensor) -> Tensor:
        """One image, (batch, y, x), that coil k-space stands for."""

    @abstractmethod
    def __call__(self, weighted: Tensor, sigma: float) -> Tensor:
        """Weighted k-space that agrees with the data."""

    def _replace(self, kspace: Tensor, misfit: Tensor) -> None:
        """Take an estimate of k-space with the measured samples in it; `misfit` is that of `measured_share`."""
        self._last = kspace, misfit
        allowed = {"auto": self._quiet, "true": math.inf, "false": 0.0}[self._settings.keep_measured]
        if bool((self._noise <= allowed).all()):
            self.kspace = replace_samples(kspace, self._measured, self._mask)
        else:
            self.kspace = self.weighted_kspace(allowed)

    def weighted_kspace(self, allowed: float = 0.0) -> Tensor:
        """Coil k-space of the last step, the measured samples weighted by what of their noise is not allowed."""
        kspace, misfit = self._last
        share = self._mask * measured_share(misfit, self._mask, self._noise, allowed)
        return replace_samples(kspace, self._measured, share)

    def _rank(self) -> int:
        """As set, or the number of singular values above those of noise and a fraction of the largest one."""
        if self._settings.rank:
            return self._settings.rank
        values = torch.linalg.eigvalsh(gram_matrix(self.kspace, self._settings.window)).clamp_min(0).sqrt()
        of_noise = self._noise.to(values) * math.sqrt(2 * self.kspace.shape[-2] * self.kspace.shape[-1])
        least = torch.maximum(RANK_THRESHOLD * values[:, -1:], of_noise[:, None])
        return max(1, int((values > least).sum(1).max()))

    def _find_phase(self, images: Tensor) -> None:
        """Take the low-resolution phase of images (batch, array, y, x) as the one that the prior does not see."""
        if self._prior.phase_width:
            self._phase = low_resolution_phase(fft2c(images), self._prior.phase_width)

    def _weighted(self, images: Tensor) -> Tensor:
        """Weighted k-space of images (batch, array, y, x) without their phase."""
        self._unweighted = fft2c(images if self._phase is None else images * self._phase.conj())
        return self._prior.weighting.weight(self._unweighted)

    def _images(self, weighted: Tensor) -> Tensor:
        """The inverse of `_weighted`."""
        images = ifft2c(self._prior.weighting.unweight(weighted, self._unweighted))
        return images if self._phase is None else images * self._phase


class SenseConsistency(_Consistency):
    r"""Data consistency of coil-combined images by the SENSE proximal step.

    Parameters
    ----------
    prior : WeightedKspacePrior
        Prior, for its weighting and phase.
    measured : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), in the units of the prior, zero where not measured.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    noise : Tensor
        Noise level of the data in each part, in the units of the prior, shape (batch,).
    settings : GenerativeSettings
        Of which `low_rank`, `keep_measured`, `window` and `rank` are looked at.
    steps : int
        Calls that the sampler will make.

    Notes
    -----
    :math:`x = \arg\min_x \|P F S x - y\|_2^2 + \lambda \|x - x_0\|_2^2` with the denoised images x_0 and
    :math:`\lambda = 2 \sigma_y^2 / e^2`: the noise of the data against the misfit e of the denoised images to them,
    measured anew in every step. With `low_rank` the maps are taken anew, after a quarter and half of the steps, from
    the low-rank space of the Hankel matrix of all of the estimated k-space, which knows them better than the
    calibration region.
    """

    def __init__(
        self,
        prior: WeightedKspacePrior,
        measured: Tensor,
        mask: Tensor,
        maps: Tensor,
        noise: Tensor,
        settings: GenerativeSettings,
        steps: int,
    ) -> None:
        super().__init__(prior, measured, mask, noise, settings)
        self._refresh = {steps // 4, steps // 2} - {0} if settings.low_rank else set()
        self._use(maps)

    def begin(self) -> Tensor:
        maps = self._operator.maps
        images = cg_sense(self._measured, maps, self._mask, regularisation=1e-3, iterations=10)
        energy = images.abs().square().sum((0, 2, 3))
        kept = int(torch.nonzero(energy >= SET_ENERGY * energy.sum()).max()) + 1
        self._use(maps[:, :kept])
        self.kspace = replace_samples(self._coils(images[:, :kept]), self._measured, self._mask)
        combined = self._combine(self.kspace)
        self._find_phase(combined)
        return self._weighted(combined)

    def __call__(self, weighted: Tensor, sigma: float) -> Tensor:
        self._step += 1
        images = self._images(weighted)
        misfit = (self._measured - self._mask * self._coils(images)).abs().square().sum(1, keepdim=True) / 2
        coils = self._measured.shape[1]
        # An error of variance e^2 a pixel is one of e^2 / coils a sample: the maps share it out.
        error = (misfit.sum((1, 2, 3)) / self._mask.sum((1, 2, 3)).clamp_min(1)) - coils * self._noise**2
        trust = TRUST * (self._noise / self._quiet).clamp_min(1)
        weight = trust * self._noise**2 / torch.maximum(error, (SMALLEST_ERROR * self._noise) ** 2)
        images = sense_proximal(self._operator, self._measured, images, weight, iterations=4)
        kspace = self._coils(images)
        self._replace(kspace, misfit / coils)
        if self._step in self._refresh:
            sets = self._operator.maps.shape[1]
            self._use(low_rank_maps(self.kspace, self._settings.window, self._rank(), sets=sets))
            combined = self._combine(self.kspace)
            self._find_phase(combined)
            return self._weighted(combined)
        return self._weighted(self._combine(self.kspace))

    def zero_filled(self) -> Tensor:
        return self._weighted(self._combine(self._measured))

    def image(self, kspace: Tensor) -> Tensor:
        return self._combine(kspace)[:, 0]

    def _use(self, maps: Tensor) -> None:
        self._operator = SenseOperator(maps, self._mask)

    def _coils(self, images: Tensor) -> Tensor:
        """Coil k-space (batch, coil, y, x) of images (batch, set, y, x)."""
        return fft2c((self._operator.maps * images.unsqueeze(2)).sum(1))

    def _combine(self, kspace: Tensor) -> Tensor:
        """Images (batch, set, y, x) of coil k-space."""
        return (self._operator.maps.conj() * ifft2c(kspace).unsqueeze(1)).sum(2)


class CoilConsistency(_Consistency):
    r"""Calibrationless data consistency, coil by coil: Hankel low rank over the coils, then the measured samples.

    Parameters
    ----------
    prior : WeightedKspacePrior
        Prior, for its weighting and phase.
    measured : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), in the units of the prior, zero where not measured.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    noise : Tensor
        Noise level of the data in each part, in the units of the prior, shape (batch,).
    settings : GenerativeSettings
        Of which `window` and `rank` are looked at.
    low_rank : bool
        Whether to project on low rank.
    steps : int
        Calls that the sampler will make.

    Notes
    -----
    :math:`k \mapsto P y + (1 - P) \, \mathcal L_r(k)` (Tu et al., NMR in Biomedicine 2022). The rank grows over
    few steps: what is aliasing at first would be taken for signal.
    """

    def __init__(
        self,
        prior: WeightedKspacePrior,
        measured: Tensor,
        mask: Tensor,
        noise: Tensor,
        settings: GenerativeSettings,
        low_rank: bool,
        steps: int,
    ) -> None:
        super().__init__(prior, measured, mask, noise, settings)
        self._low_rank, self._steps = low_rank, steps

    def begin(self) -> Tensor:
        self.kspace = self._measured
        if self._low_rank:
            rank = max(1, round(FIRST_RANK * self._rank()))
            self.kspace = low_rank_completion(self._measured, self._mask, self._settings.window, rank, 5)
        images = ifft2c(self.kspace)
        self._find_phase(images)
        return self._weighted(images)

    def __call__(self, weighted: Tensor, sigma: float) -> Tensor:
        self._step += 1
        kspace = fft2c(self._images(weighted))
        if self._low_rank:
            rank = self._rank()
            if self._settings.sampler == "few_step":
                done = min(self._step / self._steps, 1.0)
                rank = max(1, round((FIRST_RANK + (1 - FIRST_RANK) * done) * rank))
            kspace = low_rank_projection(kspace, self._settings.window, rank)
        misfit = (self._mask * (self._measured - kspace)).abs().square().mean(1, keepdim=True) / 2
        self._replace(kspace, misfit)
        return self._weighted(ifft2c(self.kspace))

    def zero_filled(self) -> Tensor:
        return self._weighted(ifft2c(self._measured))

    def image(self, kspace: Tensor) -> Tensor:
        coils = ifft2c(kspace)
        strongest = coils.abs().square().sum((0, 2, 3)).argmax()
        return coils[:, strongest]


def measured_share(misfit: Tensor, mask: Tensor, noise: Tensor, allowed: float = 0.0) -> Tensor:
    r"""Weight of measured samples against those of an estimate, by the noise and by the misfit of the two.

    Parameters
    ----------
    misfit : Tensor
        Squared difference of data and estimate in each part, mean over the coils, shape (batch, 1, y, x), zero where
        not measured.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    noise : Tensor
        Standard deviation of the noise of the data in each part, shape (batch,).
    allowed : float
        Noise that may stay; samples of less have weight 1.

    Returns
    -------
    Tensor
        From 0 to 1, shape (batch, 1, y, x).

    Notes
    -----
    :math:`e^2 / (e^2 + \sigma_y^2 - \sigma_0^2)` with the allowed noise :math:`\sigma_0` and the variance e^2 of
    the error of the estimate, which is the mean misfit in a ring of k-space less the noise (Wiener's filter).
    """
    height, width = mask.shape[-2:]
    ring = (20 * radial_frequency(height, width, mask.device)).long().flatten()
    count = int(ring.max()) + 1
    shares = []
    for one, sampled, level in zip(misfit.flatten(1), mask.flatten(1), noise, strict=True):
        total = one.new_zeros(count).index_add_(0, ring, one * sampled)
        samples = one.new_zeros(count).index_add_(0, ring, sampled.to(one.dtype))
        error = (total / samples.clamp_min(1) - level**2).clamp_min(0)
        unwanted = (level**2 - allowed**2).clamp_min(0)
        share = torch.where(unwanted > 0, error / (error + unwanted), 1)
        shares.append(share[ring].reshape(1, height, width))
    return torch.stack(shares)


def unexplained_fraction(kspace: Tensor, mask: Tensor, maps: Tensor, noise: Tensor) -> float:
    r"""How much of the calibration signal coil maps leave unexplained.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    noise : Tensor
        Standard deviation of the noise of the data in each part, shape (batch,).

    Returns
    -------
    float
        Norm of what is left relative to the norm of the signal, of all slices together; 0 without a fully sampled
        centre.

    Notes
    -----
    :math:`\|(I - S S^+) c\| / \|c\|` with the low-resolution coil images c of the calibration region, less what its
    noise makes.
    """
    left_over, signal = 0.0, 0.0
    for one, sampled, sets, level in zip(kspace, mask, maps, noise.tolist(), strict=True):
        rows, columns = calibration_region(sampled[0].cpu())
        size = min(rows.stop - rows.start, columns.stop - columns.start)
        if size < 8:
            continue
        window = hann(one.shape[-2], size, one.device)[:, None] * hann(one.shape[-1], size, one.device)
        basis, factors = torch.linalg.qr(sets.permute(2, 3, 1, 0))  # (y, x, coil, set)
        # Sets that are cropped to zero explain nothing.
        weights = factors.diagonal(dim1=-2, dim2=-1).abs()
        basis = basis * (weights > SMALLEST_WEIGHT).unsqueeze(-2)
        vectors = ifft2c(one * window).permute(1, 2, 0).unsqueeze(-1)
        left = (vectors - basis @ (basis.mH @ vectors))[..., 0].permute(2, 0, 1)
        # Within the region again: the product of map and blurred image reaches beyond it, which is no fault of the map.
        of_noise = 2 * level**2 * float(window.pow(4).sum())
        directions = len(one) - float((weights > SMALLEST_WEIGHT).sum(-1).float().mean())
        left_over += float((fft2c(left) * window).abs().square().sum()) - of_noise * directions
        signal += float((one * window.square()).abs().square().sum()) - of_noise * len(one)
    return math.sqrt(max(left_over, 0.0) / signal) if signal > 0 else 0.0


def _unlike(
    prior: WeightedKspacePrior, images: Tensor, weighted: Tensor, typical: tuple[float, float]
) -> list[list[str]]:
    """A warning for each of the images (batch, y, x) whose denoising gain is not like those of the training.

    Noise is looked for in the images as they are, structure in those whose measured samples are weighted by their
    noise: it would hide that there is little.
    """
    text = "the data are unlike those that the prior was trained on"
    warnings: list[list[str]] = [[] for _ in images]
    levels = signal_level(images).tolist()
    gains = denoising_gain(prior, images).tolist(), denoising_gain(prior, weighted).tolist()
    for found, level, as_it_is, of_structure in zip(warnings, levels, *gains, strict=True):
        if level < FAINT * SIGNAL_LEVEL:
            continue
        if of_structure < typical[0]:
            found.append(f"{text} (less structure, as a phantom)")
        elif as_it_is > typical[1]:
            found.append(f"{text} (more noise or artefacts)")
    return warnings


def _noise_levels(
    settings: GenerativeSettings, prior: WeightedKspacePrior, coils: int, mask: Tensor, last: float
) -> Tensor:
    """Schedule of the sampler; `last` is the last level of the few-step one unless the settings say it.

    What the settings leave open is kept within the range of the prior.
    """
    least, most = prior.sigma_range
    if settings.sampler == "predictor_corrector":
        # Published for slope 0.018 / 128 a sample; noise of any weighting scales with its slope.
        ratio = prior.weighting.slope / Weighting.published().slope
        highest, lowest, steps = min(ratio, most), max(0.01 * ratio, least), settings.steps or 1000
    else:
        acceleration = 1 / float(mask.float().mean())
        highest = min(0.06 * max(1.0, 2 * acceleration / coils), LARGEST_SIGMA, most)
        lowest, steps = max(last, least), settings.steps or FEW_STEPS
    highest = settings.sigma_max or max(highest, min(2 * settings.sigma_min, most))
    lowest = settings.sigma_min or max(min(lowest, 0.5 * highest), least)
    sigmas = geometric_sigmas(lowest, highest, steps)
    prior.check_sigmas(sigmas)
    return sigmas
