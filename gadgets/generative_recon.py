"""Reconstruction: k-space and coil maps in, images out. The slot every prior and method goes into."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import ismrmrd
import torch
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit

from gadgets.acquisitions import calibration_mode
from gadgets.buffers import (
    averaged,
    filled,
    is_3d,
    kspace_problems,
    maps_of,
    maps_problems,
    sampled,
)
from gadgets.image_arrays import ImageArrays
from gadgets.line_counts import LineCounts
from gadgets.outputs import INTENSITY_OFFSET, NOISE_MAPS, SNR, asked_names, asked_outputs
from gadgets.partial_fourier import CHOICES, acquired_part, fill_missing_side, filling
from gadgets.pixel_scale import MOST_WITHOUT_SIGNAL, PixelScale, has_signal
from gadgets.placed_readouts import checked_readouts
from gadgets.shading import CHOICES as SHADING_CHOICES
from gadgets.solvers.budget import ScanBudget, expected_images
from gadgets.solvers.classical import METHODS
from gadgets.solvers.generative import GenerativeSolver
from gadgets.solvers.methods import PROBLEM_MEGABYTES, all_methods, foreign_option, solve_in_parts
from gadgets.solvers.noise_maps import NoiseMapper
from gadgets.solvers.outcome import Problems, Solve
from gadgets.solvers.work import BufferWork, ImageWork, image_counters
from gadgets.stream import Gadget, ReconError, parameter
from gadgets.twins.noise_adjust import is_prewhitened
from priors.data_steps.step import DataWeightName, KeepName
from priors.registry import is_generative
from priors.settings import DataStepName, QualityName, SamplerName
from priors.signal.scale import image_scale

log = logging.getLogger("genrecon")


class GenerativeRecon(Gadget):
    """Turns k-space with coil maps into image arrays, by the chosen method.

    A scan never ends without an image: where the prior fails or `time_budget_s` is about to pass, the images are the
    best there are (fewer steps, else `l1_wavelet`, else `cg_sense`), marked in their meta attributes and DICOM.
    """

    makes_images = True

    @dataclass(frozen=True)
    class Parameters:
        method: str = parameter("l1_wavelet", "how to reconstruct", choices=all_methods())
        variant: str = parameter(
            "", "form of a generative method: as published, or empty for ours", choices=("", "published")
        )
        regularisation: float = parameter(0.0, "weight of the prior; 0: the method's own", minimum=0.0)
        iterations: int = parameter(0, "most iterations; 0: the method's own", minimum=0, maximum=10000)
        prior: str = parameter(
            "",
            "weights of the generative prior or of unrolled (.safetensors, or those of the package by name, as "
            "wkgm_contrasts), or for method custom code: FILE.py:NAME or MODULE:NAME; several priors: "
            "2*a.safetensors + wkgm + wavelet + low_rank; empty: the method's own",
            local=True,
        )
        training: str = parameter(
            "none",
            "self: hkgm goes on learning from the scan, once a protocol",
            choices=("none", "self"),
            local=True,  # what is learnt is for later scans, too
        )
        training_budget_s: float = parameter(60.0, "seconds that this may add to the scan", minimum=1.0, maximum=3600.0)
        training_cache: str = parameter(
            "",
            "folder that learnt priors are kept in; empty: the user's cache, for scans whose protocol has a name",
            local=True,
            same_image=True,
        )
        data_consistency: str = parameter(
            "auto",
            "coil maps, coil by coil with low rank or without; auto: by what the maps explain",
            choices=get_args(DataStepName),
        )
        sampler: str = parameter(
            "auto",
            "rule by which prior and data take turns; auto: the prior's own",
            choices=get_args(SamplerName),
        )
        quality: str = parameter(
            "standard",
            "steps of the sampler, sets of coil maps and resolution at high noise levels against time; a published "
            "variant keeps its steps",
            choices=get_args(QualityName),
        )
        steps: int = parameter(
            0,
            "steps of the sampler; 0: by quality, standard 16 few_step, 1000 predictor_corrector as published",
            minimum=0,
            maximum=10000,
        )
        sigma_max: float = parameter(0.0, "first noise level; 0: by undersampling", minimum=0.0, maximum=100.0)
        sigma_min: float = parameter(0.0, "last noise level; 0: by the noise of the data", minimum=0.0, maximum=100.0)
        samples: int = parameter(
            1, "posterior samples; above 1: mean and standard deviation as two series", minimum=1, maximum=64
        )
        seed: int = parameter(0, "seed of the samples", minimum=0, maximum=2**31 - 1)
        noise_level: float = parameter(
            0.0,
            "noise of one readout in each part, before averaging: 1 behind a noise scan; 0: from one, or estimated",
            minimum=0.0,
        )
        denoising: float = parameter(
            1.0,
            "strength of denoising: factor of the noise that weighs the data, and its square of the regularisation",
            minimum=0.05,
            maximum=10.0,
        )
        keep_measured: str = parameter(
            "auto",
            "keep measured samples as they are, or weight them by their noise; auto: where that is above 1.2 %",
            choices=get_args(KeepName),
        )
        data_weight: str = parameter(
            "misfit",
            "weight of the data: by how badly the prior's estimate fits to them, or exactly by the likelihood of noise",
            choices=get_args(DataWeightName),
        )
        partial_fourier: str = parameter(
            "off",
            "missing side of k-space from the acquired one, where measured samples speak for it: pocs or homodyne; "
            "auto: pocs for classical methods, the prior alone for generative ones; off: nothing is done",
            choices=CHOICES,
        )
        shading: str = parameter(
            "off",
            "fit: take surface-coil shading out of magnitude and standard deviation; no quantities after that",
            choices=SHADING_CHOICES,
        )
        kernel: int = parameter(0, "samples along each axis of a GRAPPA kernel; 0: 5", minimum=0, maximum=15)
        window: int = parameter(6, "window of the Hankel matrix", minimum=2, maximum=16)
        rank: int = parameter(0, "rank of the Hankel matrix; 0: from the data", minimum=0)
        time_budget_s: float = parameter(
            0.0, "seconds of computing for the whole scan; 0: no limit", minimum=0.0, same_image=True
        )
        slices_at_once: int = parameter(
            1, "images reconstructed together (for a GPU)", minimum=1, maximum=256, same_image=True
        )
        device: str = parameter("auto", "where the prior runs; auto: a GPU where there is one", same_image=True)
        fill_calibration: bool = parameter(True, "use embedded calibration lines as imaging lines too")
        average: bool = parameter(True, "average k-space over averages; false: an image of each")
        output: str = parameter(
            "magnitude",
            f"what to hand out, comma-separated, each as a series of its own: {', '.join(asked_names())}",
            same_image=True,  # an image of one kind does not depend on the others that are asked for
        )
        intensity_offset: int = parameter(
            INTENSITY_OFFSET,
            "value of zero in phase, real and imaginary images: what property intensity_offset of FloatToUShortGadget "
            "is in this chain",
            minimum=1,
            maximum=INTENSITY_OFFSET,
            same_image=True,
        )
        replicas: int = parameter(
            0,
            "pseudo replicas for output snr and gfactor; 0: none for methods with a formula (cg_sense, grappa, "
            "zero_filled), 32 for others",
            minimum=0,
            maximum=4096,
        )
        image_series: int = parameter(0, "added to the images' series index", minimum=0, maximum=60000)
        intensity: float = parameter(
            2048.0,
            "pixel value of the 99.9th percentile of the first image with signal (genrecon replay: of the brightest); "
            "0 leaves intensities alone",
            minimum=0.0,
            maximum=16000.0,
        )
        pixel_scale: float = parameter(
            0.0,
            "what all images of the scan are multiplied by instead; 0: by intensity",
            minimum=0.0,
        )
        noise: str = parameter(
            "", "which noise the data were prewhitened with, for the images' metadata", same_image=True
        )
        noise_name: str = parameter("", "file or measurement of that noise", same_image=True)
        reference: str = parameter(
            "",
            "reference scan whose calibration is used where the scan has none, for the images' metadata",
            same_image=True,
        )
        reference_name: str = parameter("", "file or measurement of that reference scan", same_image=True)

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take header and properties; load the prior. Raises ReconError for what is wrong with any of them."""
        super().configure(header, properties)
        changed = {name for name in properties if getattr(self.parameters, name) != getattr(self.Parameters(), name)}
        try:
            self._outputs = asked_outputs(self.parameters.output)
        except ValueError as error:
            raise ReconError(f"gadget {self.name}: property 'output': {error}") from None
        self._wants_noise_maps = any(output in NOISE_MAPS for output in self._outputs)
        if self._wants_noise_maps:
            changed -= {"noise_level", "seed", "time_budget_s"}  # of their replicas
        elif self.parameters.replicas:
            raise ReconError(f"gadget {self.name}: property 'replicas' is for output snr and gfactor; ask for one")
        foreign = foreign_option(self.parameters.method, changed)
        if foreign:
            raise ReconError(
                f"gadget {self.name}: property '{foreign[0]}' means nothing to method {self.parameters.method}; it is "
                f"for {', '.join(foreign[1])}"
            )
        self._solver: Solve
        if is_generative(self.parameters.method):
            generative = GenerativeSolver(self.parameters, self.name, header, self._known() or self._announced())
            self._solver, self._settings = generative, generative.settings_text
        else:
            self._solver, self._settings = METHODS[self.parameters.method].solver(self.parameters, self.name)
        self._filling = filling(self.parameters.partial_fourier, self.parameters.method)
        if self.parameters.partial_fourier != "off":
            self._settings += f" partial_fourier={self.parameters.partial_fourier}"
        if self.parameters.shading != "off":
            self._settings += f" shading={self.parameters.shading}"
        self._noise_mapper: NoiseMapper | None = None
        if self._wants_noise_maps:
            self._noise_mapper = NoiseMapper(self.parameters, self._solver, SNR in self._outputs)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        self._scale = PixelScale(
            self.name, self.parameters.intensity, self.parameters.pixel_scale, self.parameters.intensity_offset
        )
        self._unscaled: list[BufferWork] = []
        self._line_counts = LineCounts(self.header)
        self._image_arrays = ImageArrays(
            self.parameters, self.header, self.survey, self._scale, self._settings, self._outputs
        )
        self._budget = ScanBudget(self.parameters.time_budget_s or math.inf, self._announced(), self._known())
        waiting: list[BufferWork] = []
        for item in checked_readouts(items, self.header):
            if not isinstance(item, ReconData):
                yield item
                continue
            for space, bit in enumerate(item.bits):
                if bit.data.data.size:
                    waiting.append(self._work(space, bit))
            if sum(len(work.images) for work in waiting) >= self.parameters.slices_at_once:
                yield from self._done(waiting)
                waiting = []
        yield from self._done(waiting, last=True)
        counts = self._line_counts
        if counts.incomplete:
            log.warning(
                "%s: %d of %d images have a fraction of their lines; they are marked",
                self.name,
                counts.incomplete,
                counts.images,
            )

    def _announced(self) -> int:
        return expected_images(self.header, self.parameters.average)

    def _known(self) -> int | None:
        """Number of images by the survey; None in a stream."""
        return self.survey.images(self.parameters.average) if self.survey is not None else None

    def _work(self, space: int, bit: ReconBit) -> BufferWork:
        """What is to be done for one bit."""
        all_maps = getattr(bit, "coil_maps", None)
        if all_maps is None:
            raise ReconError("gadget GenerativeRecon: no coil maps came; put gadgets.espirit Espirit before it")
        data, headers = bit.data.data, bit.data.headers
        embedded = bit.ref is not None and calibration_mode(self.header.encoding[space]) == "embedded"
        if embedded and self.parameters.fill_calibration:
            data = filled(data, bit.ref.data)
        merged, counts = 1, None
        if self.parameters.average:
            data, headers, merged, counts = averaged(data, headers)
        if is_3d(data) and not is_generative(self.parameters.method) and METHODS[self.parameters.method].slices_only:
            raise ReconError(
                f"gadget {self.name}: method {self.parameters.method} is trained for 2D slices and this scan is a "
                "volume; take another method"
            )
        if self._noise_mapper is not None and counts is None:
            counts = (data != 0).any(axis=3, keepdims=True)
        n_count, s_count, locations = data.shape[4:]
        images = []
        for loc in range(locations):
            for s in range(s_count):
                maps = maps_problems(maps_of(all_maps, s, loc))
                for n in range(n_count):
                    part, lines = data[..., n, s, loc], headers[..., n, s, loc]
                    if not part.any() and not any(head.number_of_samples for head in lines.flat):
                        continue  # no such image was measured, only others of its N, S or slice
                    level = merged**-0.5 if is_prewhitened(lines) else 0.0
                    place, counters = (n, s, loc), image_counters(space, lines)
                    doubt = self._line_counts.doubt(space, (part != 0).any(axis=(0, 3)), lines)
                    mask = sampled(part)
                    image = ImageWork(place, counters, kspace_problems(part), mask, maps, level, merged, doubt=doubt)
                    if self._noise_mapper is not None and counts is not None:
                        image.averages = counts[..., 0, n, s, loc]
                    image.acquired = acquired_part(part)
                    images.append(image)
        return BufferWork(space, bit, data, headers, all_maps.shape[4], images)

    def _done(self, works: list[BufferWork], last: bool = False) -> Iterator[ImageArray | ismrmrd.Image]:
        """Reconstruct what was collected, images of one size together."""
        groups: dict[tuple[torch.Size, torch.Size, str], list[ImageWork]] = {}
        for work in works:
            for image in work.images:
                if isinstance(self._solver, GenerativeSolver) and bool((image.kspace != 0).any()):
                    mask = image.mask[:, None]
                    image.noise = self._solver.noise(image.kspace, mask, image.prewhitened, image.merged)
                    image.choice = self._solver.choose(image.kspace, mask, image.maps, image.noise)
                groups.setdefault((image.kspace.shape[1:], image.maps.shape[1:], image.choice[0]), []).append(image)
        at_hand = sum(map(len, groups.values()))
        for group in groups.values():
            self._solve(group, at_hand)
            at_hand -= len(group)
        self._unscaled += works
        if not self._scale.known and not self._scaled_by_signal() and not last:
            count = sum(len(work.images) for work in self._unscaled)
            if count < MOST_WITHOUT_SIGNAL:
                return  # images of noise, until one of signal gives the scale
        for work in self._unscaled:
            yield from self._image_arrays.of(work)
        self._unscaled = []

    def _scaled_by_signal(self) -> bool:
        """Take the pixel scale from the first image that holds signal, if there is one."""
        images = (image for work in self._unscaled for image in work.images)
        image = next((image for image in images if has_signal(image.kspace, image.mask)), None)
        if image is None or image.outcome is None:
            return False
        self._scale.take(image.outcome.images)
        return self._scale.known

    def _solve(self, images: list[ImageWork], at_hand: int) -> None:
        """Reconstruct images of one size, of `at_hand` that wait, within their share of the time budget."""
        start = time.monotonic()
        solve, megabytes = self._solver, PROBLEM_MEGABYTES
        if isinstance(solve, GenerativeSolver):
            problems = sum(len(image.kspace) for image in images)
            seconds = self._budget.share(len(images), at_hand, solve.least(problems))
            solve.begin(start + seconds, problems, images[0].choice)
            megabytes = solve.megabytes
        levels = [image_scale(i.kspace, i.mask[:, None]).max().expand(len(i.kspace)) for i in images]
        masks = [image.mask.expand(len(image.kspace), *image.mask.shape[1:]) for image in images]
        stack = Problems(
            kspace=torch.cat([image.kspace for image in images]),
            mask=torch.cat(masks)[:, None],
            maps=torch.cat([image.maps for image in images]),
            level=torch.cat(levels),
            noise=torch.cat([torch.full((len(image.kspace),), image.noise) for image in images]),
            keys=[(*image.counters, position) for image in images for position in range(len(image.kspace))],
        )
        outcome = solve_in_parts(stack, solve, megabytes)
        first = 0
        for image in images:
            image.outcome = outcome.part(slice(first, first + len(image.kspace)))
            first += len(image.kspace)
        took = time.monotonic() - start
        self._budget.spent(len(images), took)
        if self._noise_mapper is not None:
            start = time.monotonic()
            seconds = self._budget.spare(len(images), at_hand - len(images))
            self._noise_mapper.add(images, stack, megabytes, seconds, took)
            self._budget.spent_on_more(time.monotonic() - start)
        for image in images:
            if self._filling is not None and image.acquired is not None:
                fill_missing_side(image, self._filling)
            if image.outcome is not None:
                image.outcome.sets = image.outcome.coils = None  # they take memory
