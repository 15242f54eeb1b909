"""An unrolled network as a method: trained weights, and what users must know where they do not fit to the scan."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from gadgets.solvers.loading import device_of, stamp_of, weights_errors
from gadgets.solvers.outcome import Outcome, Problems, Solve
from gadgets.stream import ReconError
from priors.data_steps.choice import UNEXPLAINED, unexplained_fraction
from priors.learning.cards import ModelCard
from priors.learning.checkpoints import weights_file
from priors.signal.combination import combine_sets
from priors.signal.noise import noise_level
from priors.unrolled import KIND, UnrolledReconstruction, load_unrolled


class UnrolledMethod:
    """The method `unrolled`, with the interface of the classical methods (`gadgets.solvers.classical.Method`)."""

    options = ("prior", "device")
    program: tuple[str, str] | None = None
    ready = False  # weights are for one mask: no default
    slices_only = True

    def solver(self, parameters: Any, gadget: str) -> tuple[Solve, str]:
        """The method with its weights, and these as a text.

        The property `prior` names a file, or weights for one mask that come with the package to be compared with:
        "unrolled" (learnt from references) or "unrolled_ssdu" (without).

        Raises ReconError when there are none, or they cannot be used.
        """
        if not parameters.prior:
            raise ReconError(
                f"gadget {gadget}: method {KIND} needs weights for the mask of your scans; train them (genrecon train "
                f"{KIND} --data full.h5 --set mask=poisson:4) and name them by the property prior"
            )
        device = device_of(parameters, gadget)
        with weights_errors(gadget):
            path = weights_file(parameters.prior)
            network, card = _loaded(path, stamp_of(path), device)
        keeps_parts = parameters.partial_fourier != "off"

        def solve(problems: Problems) -> Outcome:
            images = network(*(array.to(device) for array in (problems.kspace, problems.mask, problems.maps))).cpu()
            outcome = Outcome(combine_sets(images, problems.maps), sets=images if keeps_parts else None)
            _warn(outcome, problems, network)
            return outcome

        text = f"prior={card.name}:{card.training_data_sha256[:8]}:{card.steps}"
        return solve, text


def _warn(outcome: Outcome, problems: Problems, network: UnrolledReconstruction) -> None:
    """Note what the network was trained for, and add warnings where the problems are unlike that."""
    outcome.note("GenreconTrainedFor", network.trained_for)
    for index, warnings in enumerate(outcome.warnings):
        if text := network.unlike_training(problems.mask[index, 0]):
            warnings.append(text)
        kspace, mask, maps = (array[index][None] for array in (problems.kspace, problems.mask, problems.maps))
        level = torch.tensor([noise_level(kspace, mask)])
        left = unexplained_fraction(kspace, mask, maps, level)
        if left > UNEXPLAINED:
            warnings.append(f"coil maps leave {left:.1%} of the calibration signal, which method {KIND} needs")


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, _stamp: tuple[int, ...], device: torch.device) -> tuple[UnrolledReconstruction, ModelCard]:
    network, card = load_unrolled(path)
    return network.to(device), card
