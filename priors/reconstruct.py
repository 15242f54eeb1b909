"""The loop of every reconstruction with a prior: scale, phase, symmetries, rule, data step, samples, warnings."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from priors.data_steps.choice import choose_consistency
from priors.data_steps.coils import CoilStep
from priors.data_steps.sense import SenseStep
from priors.data_steps.step import DataStep, KspaceStep, Measurement, StepSettings
from priors.domains import SYMMETRIES
from priors.prior import Prior
from priors.rules.few_step import few_step
from priors.rules.noise import SliceNoise
from priors.rules.predictor_corrector import predictor_corrector
from priors.rules.proximal import proximal
from priors.rules.relaxation import annealed, momentum
from priors.rules.rule import RULES, Noise, Stop, check_rule, default_rule
from priors.rules.rule import evaluations as count_evaluations
from priors.settings import QUALITIES, Reconstruction, ReconstructionSettings
from priors.sigmas import schedule
from priors.signal.fourier import fft2c, low_resolution_phase
from priors.signal.noise import noise_level
from priors.signal.scale import SIGNAL_LEVEL
from priors.typicality import unlike_training

LOWEST_NOISE = 5e-4  # of the data, for images of maximum 0.6
INJECTED = 1.0  # fresh noise of the few-step rule where several samples are wanted
MOST_UNKNOWNS = 2048  # of a row of the Hankel matrix; the window is smaller where the coils are many
# Symmetry of a sample's first evaluation. That of the last one moves the SSIM of a T1 brain by 0.0005 either way; this
# one is in between.
FIRST_SYMMETRY = 5
SMALLEST_HALF = 96  # samples of the central half of k-space along y and x that a prior is shown alone
SYMMETRY_STRIDE = 3  # every symmetry comes once in eight evaluations, and neighbours differ by more than a quarter turn

_RUN: dict[str, Callable[..., Tensor]] = {
    "few_step": few_step,
    "predictor_corrector": predictor_corrector,
    "annealed": annealed,
    "momentum": momentum,
    "proximal": proximal,
}


def reconstruct(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor | None,
    prior: Prior,
    settings: ReconstructionSettings | None = None,
    *,
    noise: float | Tensor = 0.0,
    keys: Sequence[Hashable] | None = None,
    stop: Stop | None = None,
) -> Reconstruction:
    r"""Reconstruct slices with a generative prior.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x), of signal level 1 (divided by `image_scale`).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    maps : Tensor, optional
        Coil maps, complex, shape (batch, set, coil, y, x), on the device of the k-space.
    prior : Prior
        Prior, on the device of the k-space.
    settings : ReconstructionSettings, optional
        How to reconstruct.
    noise : float or Tensor
        Standard deviation of the noise of k-space in each of the real and imaginary parts, in the units of k-space,
        of all slices or of each, shape (batch,); 0: estimated from the data.
    keys : sequence of hashable, optional
        What tells each slice from all others of the scan (its counters): a slice of the same key and seed has the same
        samples, whatever is reconstructed with it. If not given, the places in the batch.
    stop : callable, optional
        Asked before every step but a sample's first; the best estimate so far is the result where it says True.

    Returns
    -------
    Reconstruction
        Coil k-space of the samples, and how it was found.

    Raises
    ------
    ValueError
        If shapes do not fit, nothing was measured, coil maps are asked for and there are none, the rule does not fit to
        the prior, or noise levels that the settings give leave the range of the prior.
    FloatingPointError
        If the prior gave values that are not finite.

    Notes
    -----
    Estimates :math:`m = W (e^{-i \phi} x)` in the domain of the prior go in turn through the prior and through the data
    step, by the rule (Tu et al., NMR in Biomedicine 2022, for weighted k-space). The phase :math:`\phi` of the
    low-resolution image makes images nearly real. The prior sees each estimate by another symmetry of the square, so
    that its errors average out.
    """
    settings = settings or ReconstructionSettings()
    if keys is not None and len(keys) != len(kspace):
        raise ValueError(f"{len(keys)} keys for {len(kspace)} slices; give one a slice")
    measurement = measurement_of(kspace, mask, maps, noise)
    sampled = measurement.mask
    if bool(sampled.all()) and settings.keep_measured != "false":
        warning = ["k-space is complete: there is nothing to sample"] if settings.samples > 1 else []
        level = torch.as_tensor(noise, dtype=torch.float32).expand(len(kspace))
        reason = "k-space has no gaps"
        return Reconstruction(kspace[None].clone(), "complete", reason, level, 0, 1.0, [warning for _ in kspace])
    rule = default_rule(prior) if settings.sampler == "auto" else settings.sampler
    check_rule(rule, prior)
    columns = min(settings.window, *kspace.shape[-2:], math.isqrt(MOST_UNKNOWNS // kspace.shape[1]))
    settings = replace(settings, window=max(columns, 1), rank=min(settings.rank, kspace.shape[1] * columns**2))
    levels = measurement.noise
    name, reason = choose_consistency(settings.data_consistency, measurement.kspace, sampled, maps, levels)
    sigmas = schedule(rule, settings, prior, measurement, name == "sense")
    of_rule = RULES[rule]
    step_settings = StepSettings(
        low_rank=settings.low_rank if name == "sense" else name == "low_rank",
        keep_measured=settings.keep_measured,
        data_weight=settings.data_weight,
        denoising=settings.denoising,
        window=settings.window,
        rank=settings.rank,
        growing_rank=rule != "predictor_corrector",
        steps=of_rule.count(of_rule.data_steps, len(sigmas)),
        weak_sets=QUALITIES[settings.quality].weak_sets,
    )
    options = settings.options_of(rule)
    expected = count_evaluations(rule, len(sigmas), prior, options)
    evaluations = 0
    results: list[Tensor] = []
    for sample in range(settings.samples):
        if results and stop is not None and stop():
            break
        step: KspaceStep = (SenseStep if name == "sense" else CoilStep)(measurement, prior.domain, step_settings)
        loop = Loop(prior, step, symmetries=settings.symmetries, coarse_above=settings.coarse_above(rule))
        white_noise = SliceNoise(settings.seed, sample, keys or range(len(kspace)), kspace.device)
        initial = loop.begin()
        if rule == "predictor_corrector":
            initial = loop.encode(step.zero_filled()) if settings.start == "measured" else torch.zeros_like(initial)
        loop.run(rule, initial, sigmas, white_noise, several=settings.samples > 1, stop=stop, **options)
        evaluations += loop.evaluations
        if results and loop.evaluations < expected:
            break  # a sample that was stopped is no sample of the posterior
        results.append(step.kspace / SIGNAL_LEVEL)
        last_images = step.image(step.kspace), step.image(step.weighted_kspace())
    result = torch.stack(results)
    if not bool(torch.isfinite(torch.view_as_real(result)).all()):
        raise FloatingPointError("the prior gave values that are not finite")
    finished = evaluations / (expected * settings.samples)
    warnings: list[list[str]] = [[] for _ in kspace]
    for one in prior.each():
        if one.typical_gain is not None and (stop is None or not stop()):
            evaluations += 2
            for known, found in zip(warnings, unlike_training(one, *last_images), strict=True):
                known += [text for text in found if text not in known]
    return Reconstruction(result, name, reason, levels / SIGNAL_LEVEL, evaluations, finished, warnings)


def measurement_of(kspace: Tensor, mask: Tensor, maps: Tensor | None, noise: float | Tensor = 0.0) -> Measurement:
    """What was measured in the units of the priors, its noise estimated where it is not given; see `reconstruct`."""
    sampled = _checked(kspace, mask, maps)
    measured = SIGNAL_LEVEL * torch.where(sampled, kspace, 0)
    level = _noise(measured, sampled, SIGNAL_LEVEL * torch.as_tensor(noise, dtype=torch.float32))
    return Measurement(measured, sampled, maps, level)


class Loop:
    """A prior and a data step as a rule sees them: on arrays of the prior's domain, without phase, symmetries in turn.

    Parameters
    ----------
    prior : Prior
        Prior.
    step : DataStep
        Data step on images.
    symmetries : bool
        Whether the prior looks at each estimate by another symmetry of the square.
    coarse_above : float
        Noise level above which a scale-free prior sees the central half of k-space alone.

    Attributes
    ----------
    evaluations : int
        Evaluations of the prior so far.
    """

    def __init__(
        self, prior: Prior, step: DataStep, *, symmetries: bool = True, coarse_above: float = math.inf
    ) -> None:
        self._prior, self._step, self.symmetries, self.coarse_above = prior, step, symmetries, coarse_above
        self._phase: Tensor | None = None
        self._flat = torch.empty(0)  # images without phase as they were last encoded
        self.evaluations = 0

    def begin(self) -> Tensor:
        """First estimate."""
        return self._agreed(self._step.begin())

    def run(
        self,
        rule: str,
        initial: Tensor,
        sigmas: Tensor,
        noise: Noise,
        *,
        several: bool = False,
        stop: Stop | None = None,
        **options: float,
    ) -> Tensor:
        """Images that a rule ends at.

        Parameters
        ----------
        rule : str
            Name of a rule.
        initial : Tensor
            First estimate m.
        sigmas : Tensor
            Noise levels, float64, shape (steps,) or (steps, batch).
        noise : callable
            White noise like an array.
        several : bool
            Whether the result is one of several samples: the few-step rule then adds noise.
        stop : callable, optional
            See the rules.
        **options : float
            Options of the rule.
        """
        if several and rule == "few_step":
            options = {"injected": INJECTED, **options}
        of_domain = partial(self._prior.domain.noise, noise)
        run = partial(_RUN[rule], _Counted(self._prior, self), initial, sigmas, self.data_step, of_domain, stop=stop)
        return self.decode(run(**options))

    def encode(self, images: Tensor) -> Tensor:
        """Array m of images (batch, array, y, x) without their phase."""
        self._flat = images if self._phase is None else images * self._phase.conj()
        return self._prior.domain.encode(self._flat)

    def decode(self, m: Tensor) -> Tensor:
        """Images of an array m, with their phase."""
        images = self._prior.domain.decode(m, self._flat)
        return images if self._phase is None else images * self._phase

    def data_step(self, m: Tensor, variance: Tensor) -> Tensor:
        """Array that agrees with the data, of an array and the variance of the prior's step."""
        return self._agreed(self._step(self.decode(m), variance))

    def _agreed(self, images: Tensor) -> Tensor:
        if self._step.moved and self._prior.phase_width:
            self._phase = low_resolution_phase(fft2c(images), self._prior.phase_width)
        return self.encode(images)


class _Counted(Prior):
    """A prior that counts its evaluations and looks at each array by another symmetry of the square."""

    def __init__(self, prior: Prior, loop: Loop) -> None:
        self._prior, self._loop = prior, loop
        self.domain, self.sigma_levels = prior.domain, prior.sigma_levels

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        coarse = self._prior.scale_free and float(torch.as_tensor(sigma).min()) > self._loop.coarse_above
        if not coarse or min(m.shape[-2:]) < 2 * SMALLEST_HALF:
            return self._symmetric(self._prior.denoise, m, sigma)
        centre = _central_half(m)
        estimate = torch.zeros_like(m)  # of the rest, of which noise of this level leaves little
        _central_half(estimate).copy_(self._symmetric(self._prior.denoise, centre, sigma))
        return estimate

    def score(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        return self._symmetric(self._prior.score, m, sigma)

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        return self._symmetric(self._prior.prox, m, weight)

    def _symmetric(
        self, function: Callable[[Tensor, float | Tensor], Tensor], m: Tensor, level: float | Tensor
    ) -> Tensor:
        kind = (SYMMETRY_STRIDE * self._loop.evaluations + FIRST_SYMMETRY) % SYMMETRIES if self._loop.symmetries else 0
        self._loop.evaluations += 1
        domain = self._prior.domain
        turned = domain.symmetric(m, kind)
        found = function(turned, torch.as_tensor(level, dtype=torch.float32))
        if not isinstance(found, Tensor) or found.shape != turned.shape or not found.is_complex():
            what = f"{found.dtype} array of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            name = f"{type(self._prior).__name__}.{function.__name__}"
            raise ValueError(f"{name} gave a {what}; it must give a complex array of {tuple(turned.shape)}")
        return domain.symmetric(found.to(m.dtype), kind, back=True)


def _central_half(array: Tensor) -> Tensor:
    """View on the central half of arrays (..., y, x) along y and x; its centre is at index n // 2, too."""
    for axis in (-2, -1):
        size = array.shape[axis]
        array = array.narrow(axis, size // 2 - size // 2 // 2, size // 2)
    return array


def _checked(kspace: Tensor, mask: Tensor, maps: Tensor | None) -> Tensor:
    """The mask as bool (batch, 1, y, x). Raises ValueError where arrays do not fit or there is nothing in them."""
    if kspace.ndim != 4 or not kspace.is_complex():
        raise ValueError(f"k-space of shape {tuple(kspace.shape)} is not complex (batch, coil, y, x)")
    shape = (len(kspace), 1, *kspace.shape[-2:])
    try:
        sampled = mask.to(device=kspace.device, dtype=torch.bool).expand(shape)
    except RuntimeError:
        raise ValueError(f"mask of shape {tuple(mask.shape)} does not fit {shape}") from None
    if maps is not None and (maps.ndim != 5 or (len(maps), *maps.shape[2:]) != tuple(kspace.shape)):
        raise ValueError(
            f"coil maps of shape {tuple(maps.shape)} are not (batch, set, coil, y, x) for k-space of "
            f"{tuple(kspace.shape)}"
        )
    if not bool(sampled.any()) or not bool((kspace != 0).any()):
        raise ValueError("no sample of k-space was measured; there is nothing to reconstruct from")
    return sampled


def _noise(measured: Tensor, mask: Tensor, given: Tensor) -> Tensor:
    """Noise level of every slice, (batch,), as given or else estimated from its own data."""
    if not bool((given > 0).all()):
        slices = zip(measured, mask, given.expand(len(measured)).tolist(), strict=True)
        given = torch.tensor([level or noise_level(y[None], p[None]) for y, p, level in slices])
    return given.to(measured.device).clamp_min(LOWEST_NOISE).expand(len(measured))
