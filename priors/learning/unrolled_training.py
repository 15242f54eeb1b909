"""Training of an unrolled reconstruction: with fully sampled references, or from the measured samples alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from priors.domains import SYMMETRIES, turned
from priors.learning.cards import images_sha256
from priors.learning.recipe import Encoding, Recipe, Run, Trained, TrainingSet
from priors.learning.trainer import OptimiserSettings, Trainer
from priors.learning.unrolled import UnrolledArchitecture, UnrolledNetwork
from priors.signal.encoding import SenseOperator
from priors.signal.fourier import fft2c, ifft2c
from priors.unrolled import TRAINED_MASK, SupervisionName, UnrolledOptions

MEASURED = "measured"  # name of the mask of the data themselves
CENTRE = 4  # samples along y and x that are never held back from the data step
JUDGED = 16  # training images whose quality goes into the card where none are held out


@dataclass(frozen=True)
class UnrolledTraining:
    """What can be set.

    Parameters
    ----------
    architecture : UnrolledArchitecture
        Network and number of turns.
    settings : OptimiserSettings
        Optimiser.
    supervision : {"references", "none"}
        Learn from fully sampled images, or from the measured samples alone (SSDU).
    mask : str
        Mask that it is trained for: PATTERN:ACCELERATION (poisson, uniform, random_lines), FILE.npy or FILE.npz:NAME;
        or measured, that of the data, where supervision is none.
    coils : int
        Simulated coils that receive images; 1: none. Data of several coils keep their own.
    noise : float
        Standard deviation of noise added to the samples, in each part, for images of maximum 1.
    held_back : float
        Fraction of the measured samples that only the loss sees, where supervision is none.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: UnrolledArchitecture = field(default_factory=UnrolledArchitecture)
    settings: OptimiserSettings = field(
        default_factory=lambda: OptimiserSettings(steps=4000, batch=1, learning_rate=5e-4, bf16=False)
    )
    supervision: SupervisionName = "references"
    mask: str = "poisson:4"
    coils: int = 4
    noise: float = 0.0
    held_back: float = 0.4

    def __post_init__(self) -> None:
        if self.supervision not in get_args(SupervisionName):
            raise ValueError(f"training: supervision {self.supervision!r} is unknown; take references or none")
        if self.coils < 1 or not 0 <= self.noise < math.inf:
            raise ValueError("training: coils must be 1 or more, noise 0 or more")
        if not 0 < self.held_back < 1:
            raise ValueError(f"training: held_back {self.held_back} is not above 0 and below 1")


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    r"""Loss of unrolled networks, :math:`\|u - v\|_2 / \|v\|_2 + \|u - v\|_1 / \|v\|_1`, mean over the batch.

    Parameters
    ----------
    found, wanted : Tensor
        Complex, shape (batch, ...).

    Notes
    -----
    Yaman et al., MRM 2020. A batch entry without signal counts for nothing.
    """
    difference, reference = (torch.view_as_real(array).flatten(1) for array in (found - wanted, wanted))
    total = difference.new_zeros(len(found))
    for norm in (2, 1):
        below = torch.linalg.vector_norm(reference, norm, dim=1)
        error = torch.linalg.vector_norm(difference, norm, dim=1)
        total = total + torch.where(below > 0, error / below.clamp_min(torch.finfo(below.dtype).tiny), 0)
    return total.mean() / 2


def split_samples(mask: Tensor, held_back: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split the measured samples into those of the data step and those of the loss.

    Parameters
    ----------
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x), on the CPU.
    held_back : float
        Fraction of the samples that only the loss sees.
    generator : torch.Generator
        Of the choice, on the CPU.

    Returns
    -------
    (Tensor, Tensor)
        Masks of the two sets, bool, of the shape of `mask`: apart from each other, together all of it. The innermost
        4 x 4 samples are all of the data step's.

    Notes
    -----
    SSDU (Yaman et al., MRM 2020), with every sample as likely as any other.
    """
    loss = mask & (torch.rand(mask.shape, generator=generator) < held_back)
    height, width = mask.shape[-2:]
    rows, columns = (slice(n // 2 - CENTRE // 2, n // 2 + CENTRE // 2) for n in (height, width))
    loss[..., rows, columns] = False
    return mask & ~loss, loss


class Reconstructing:
    """Objective of an unrolled network: the relative error of images, or of samples that it has not seen.

    Parameters
    ----------
    images : Tensor
        Complex images of maximum 1, shape (slice, y, x).
    encoding : Encoding
        How they are measured.
    options : UnrolledTraining
        Supervision, noise, samples held back.
    """

    def __init__(self, images: Tensor, encoding: Encoding, options: UnrolledTraining) -> None:
        self.sha256 = images_sha256(images)
        self.description: dict[str, Any] = {
            "mask": images_sha256(encoding.mask[None].to(torch.complex64)),
            "maps": images_sha256(encoding.maps.flatten(0, 1)),
            "supervision": options.supervision,
            "noise": options.noise,
            "held_back": options.held_back,
        }
        self._images, self._encoding, self._options = images, encoding, options

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._images, self._encoding = self._images.to(device), self._encoding.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`; the network is an `UnrolledNetwork`."""
        chosen = torch.randint(len(self._images), (batch,), generator=generator)
        kind = int(torch.randint(SYMMETRIES, (), generator=generator))
        phase = torch.polar(torch.ones(batch), 2 * math.pi * torch.rand(batch, generator=generator))
        images, kspace, maps = self._drawn(chosen, kind, phase)
        if self._options.noise:
            noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=noise_generator, device=kspace.device)
            kspace = kspace + math.sqrt(2) * self._options.noise * noise
        mask = self._encoding.mask.expand(batch, 1, -1, -1)
        kspace = torch.where(mask, kspace, 0)
        if self._options.supervision == "references":
            return relative_error(network(kspace, mask, maps), images)
        seen, of_loss = split_samples(mask.cpu(), self._options.held_back, generator)
        seen, of_loss = seen.to(kspace.device), of_loss.to(kspace.device)
        found = network(torch.where(seen, kspace, 0), seen, maps)
        return relative_error(SenseOperator(maps, of_loss).forward(found), torch.where(of_loss, kspace, 0))

    def _drawn(self, chosen: Tensor, kind: int, phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (batch, set, y, x), their k-space and coil maps; images of simulated coils are turned and mirrored."""
        device = self._images.device
        chosen, factor = chosen.to(device), phase.to(device).reshape(-1, 1, 1)
        images, maps = self._images[chosen] * factor, self._encoding.maps_of(chosen)
        if self._encoding.kspace is not None:
            kspace = self._encoding.kspace[chosen] * factor[:, None]
            return _images_of(kspace, maps), kspace, maps
        height, width = images.shape[-2:]
        images = turned(images, kind if height == width else kind // 2 * 2)
        return images[:, None], _kspace_of(images, maps), maps


def _images_of(kspace: Tensor, maps: Tensor) -> Tensor:
    """Images (batch, set, y, x) of k-space without gaps (batch, coil, y, x)."""
    return (maps.conj() * ifft2c(kspace)[:, None]).sum(2)


def _kspace_of(images: Tensor, maps: Tensor) -> Tensor:
    """K-space (batch, coil, y, x) of images (batch, y, x)."""
    return fft2c(maps[:, 0] * images[:, None])


def train_unrolled(options: UnrolledTraining, data: TrainingSet, run: Run) -> Trained:
    """Train an unrolled network for one mask.

    Raises
    ------
    ValueError
        If the data say nothing of coils and mask, or a saved state is of another run.
    """
    encoding = data.encoding
    if encoding is None:
        raise ValueError("training: an unrolled network needs coils and a mask")
    if options.mask == MEASURED and options.supervision != "none":
        raise ValueError("training: mask measured has no references; set supervision=none, or name a mask")
    torch.manual_seed(options.settings.seed)
    model = run.begin(UnrolledNetwork(options.architecture))
    objective = Reconstructing(data.images, encoding, options)
    trainer = Trainer(model, objective, options.settings, run.folder / "state.safetensors")
    trainer.run(run.report("training", options.settings.steps))
    mask = encoding.mask.float().cpu()
    card = UnrolledOptions(
        architecture=options.architecture,
        supervision=options.supervision,
        sampling=encoding.name,
        acceleration=round(float(mask.numel() / mask.sum()), 4),
        coils=encoding.maps.shape[2],
    )
    text = f", measured by {encoding.name} (R = {card.acceleration:.2f}) with {card.coils} coils"
    return Trained(
        weights={**trainer.average.state_dict(), TRAINED_MASK: mask},
        options=asdict(card),
        typical_gain=None,
        steps=trainer.step,
        quality={} if options.mask == MEASURED else _quality(trainer.average, data, encoding),
        losses=trainer.losses,
        text=text + (", learnt from the measured samples alone" if options.supervision == "none" else ""),
        loss_name="relative error",
    )


@torch.no_grad()
def _quality(network: UnrolledNetwork, data: TrainingSet, encoding: Encoding) -> dict[str, float]:
    """PSNR of magnitudes by the network and by zero filling, for the card."""
    device = next(network.parameters()).device
    judged, where = data.judged(JUDGED)
    first = len(data.images) if where == "held-out" else 0
    mask = encoding.mask.to(device)[None, None]
    decibels: dict[str, list[float]] = {"": [], "zero-filled ": []}
    for index, image in enumerate(judged):
        maps = encoding.maps_of(torch.tensor([first + index])).to(device)
        if encoding.kspace is None:
            kspace, truth = _kspace_of(image.to(device)[None], maps), image.to(device)[None]
        else:
            kspace = encoding.kspace[first + index][None].to(device)
            truth = _images_of(kspace, maps)[0]
        kspace = torch.where(mask, kspace, 0)
        found = network(kspace, mask, maps)
        plain = SenseOperator(maps, mask).adjoint(kspace)
        for name, one in (("", found), ("zero-filled ", plain)):
            error = (one.abs() - truth.abs()).square().mean()
            decibels[name].append(float(10 * torch.log10(truth.abs().max() ** 2 / error)))
    return {f"PSNR {name}[dB], {where} images": round(sum(d) / len(d), 2) for name, d in decibels.items()}


RECIPE = Recipe(UnrolledTraining, train_unrolled, measured=True)
