"""The optimiser of a training run, which can be stopped at any time and taken up again."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from priors.learning.networks import Network, bf16_is_fast, channels_last

# With torch's 0.999 a run at the usual learning rate lost within ten steps what it had learnt: after a run of small
# gradients a large one makes several times the usual step. As Karras et al., CVPR 2024.
BETAS = (0.9, 0.99)

WINDOW = 20  # entries of the list of losses that are averaged to see whether a network has forgotten what it learnt


@dataclass(frozen=True)
class OptimiserSettings:
    """Settings of the optimiser of a training run.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Arrays in a batch (of each process).
    learning_rate : float
        Peak learning rate of AdamW, reached after `warm_up` steps.
    weight_decay : float
        Weight decay of AdamW.
    warm_up : int
        Steps of linearly growing learning rate.
    decay : float
        Last fraction of the run in which the learning rate falls linearly to zero: until then a run does not depend
        on how long it is to be.
    ema : float
        Decay of the moving average of the weights in a step; less in the first steps.
    bf16 : bool
        Convolutions in bfloat16, on devices that have instructions for it.
    seed : int
        Seed; two runs with the same seed, settings and images do the same.
    save_every_s : float
        Seconds between two saved states.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    steps: int = 8000
    batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warm_up: int = 100
    decay: float = 0.3
    ema: float = 0.999
    bf16: bool = True
    seed: int = 0
    save_every_s: float = 120.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.warm_up < 0:
            raise ValueError("training: steps and batch: one or more; warm_up: zero or more")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.ema < 1 or self.weight_decay < 0:
            raise ValueError("training: learning_rate above 0, ema from 0 to below 1 and weight_decay 0 or more")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"training: decay {self.decay} is not from 0 to 1")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from zero."""
        warm = min(1.0, (step + 1) / (self.warm_up + 1))
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.learning_rate * min(warm, left)


class Objective(Protocol):
    """What a training run minimises.

    Attributes
    ----------
    sha256 : str
        Hash of the data that it learns from, see `images_sha256`.
    description : dict
        What else it depends on, as JSON takes it; a run goes on only with the same.
    """

    sha256: str
    description: dict[str, Any]

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """Loss of a random batch, shape (); `generator` is on the CPU, `noise_generator` on the network's device."""


class Trainer(Generic[Network]):
    """Training run that can be stopped at any time and taken up again as if nothing had happened.

    Parameters
    ----------
    model : nn.Module
        Network to train, on the device to train on; its attribute `architecture`, a dataclass, says what it is.
    objective : Objective
        What to minimise.
    settings : OptimiserSettings
        Settings of the run.
    state_path : Path, optional
        File that keeps the state of the run (safetensors); taken up again where it exists.
    falling : bool
        Whether the loss falls from where it begins as the network learns: a run whose loss is back there has failed.

    Attributes
    ----------
    average : nn.Module
        Moving average of the weights: the result.
    step : int
        Steps done.
    losses : list of float
        Mean loss of every ten steps.

    Raises
    ------
    ValueError
        If the saved state is of another run.

    Notes
    -----
    All randomness of a step comes from the seed, the number of the step and the rank of the process, so that a
    resumed run is the uninterrupted one bit for bit. Under `torchrun` (an initialised default process group) the
    gradients are averaged by torch's DistributedDataParallel and the first process saves.
    """

    def __init__(
        self,
        model: Network,
        objective: Objective,
        settings: OptimiserSettings,
        state_path: Path | None = None,
        falling: bool = False,
    ) -> None:
        self._falling = falling
        self.device = next(model.parameters()).device
        self._bf16 = settings.bf16 and bf16_is_fast(self.device)
        self.model = (channels_last(model) if self._bf16 or self.device.type != "cpu" else model).train()
        self.objective = objective
        self.objective.to(self.device)
        self.settings = settings
        self.state_path = state_path
        self.average: Network = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), settings.learning_rate, BETAS, weight_decay=settings.weight_decay
        )
        self.step = 0
        self.losses: list[float] = []
        self._whole = True
        self._pending = torch.zeros((), dtype=torch.float64, device=self.device)
        self._rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else None
        if state_path is not None and state_path.exists():
            self._restore(state_path)
        self._network: nn.Module = model
        if self._rank is not None:
            self._network = nn.parallel.DistributedDataParallel(model)

    def run(
        self,
        progress: Callable[[int, float], None] | None = None,
        until: int | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train up to the last step and save the state on the way and at the end, also at a keyboard interrupt.

        Parameters
        ----------
        progress : callable, optional
            Called after every ten steps with the number of steps done and their mean loss.
        until : int, optional
            Stop after this step instead of the last one.
        stop : callable, optional
            Asked before every step; the run ends where it says True.

        Raises
        ------
        ValueError
            If the loss is not finite, or the network has forgotten what it learnt.
        """
        last = min(self.settings.steps, self.settings.steps if until is None else until)
        saved = time.monotonic()
        try:
            while self.step < last and not (stop is not None and stop()):
                self._advance()
                if self.step % 10 == 0:
                    self._note_loss(progress)
                    if time.monotonic() - saved > self.settings.save_every_s:
                        self.save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            # In the middle of a step the weights are those of neither; the file keeps its last whole state.
            if self._whole:
                self.save()
            raise
        self.save()

    def save(self) -> None:
        """Write the state of the run to its file, all of it or nothing; nothing without a file."""
        if self.state_path is None or self._rank not in (None, 0):
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["pending"] = self._pending
        temporary = self.state_path.with_name(self.state_path.name + ".part")
        contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(contiguous, temporary, {"run": self._description(), "step": str(self.step)})
        os.replace(temporary, self.state_path)

    def _advance(self) -> None:
        settings = self.settings
        # torch's CPU generator looks at 32 bits of a seed: a hash keeps seeds, steps and ranks apart in them.
        place = repr((settings.seed, self.step, self._rank or 0)).encode()
        digest = hashlib.sha256(place).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        noise_generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[4:8], "little"))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)
        with torch.random.fork_rng([]), autocast:
            torch.manual_seed(int.from_bytes(digest[8:12], "little"))  # of networks that draw themselves
            loss = self.objective.loss(self._network, settings.batch, generator, noise_generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._whole = False
        self.optimizer.step()
        # A young average forgets faster, or it would remember the random start.
        decay = min(settings.ema, (self.step + 1) / (self.step + 11))
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(weight, 1 - decay)
            for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
                kept.copy_(buffer)
        self._pending += loss.detach()
        self.step += 1
        self._whole = True

    def _note_loss(self, progress: Callable[[int, float], None] | None) -> None:
        loss = float(self._pending) / 10
        self._pending.zero_()
        if not math.isfinite(loss):
            raise ValueError(f"training: the loss is {loss} at step {self.step}; lower the learning rate")
        self.losses.append(loss)
        if self._falling and (best := forgotten(self.losses)) is not None:
            raise ValueError(
                f"training: the loss was {best:.2f} and is {loss:.2f} again at step {self.step}: the network has "
                f"forgotten what it learnt; start anew with a learning_rate below {self.settings.learning_rate:g}"
            )
        if progress is not None:
            progress(self.step, loss)

    def _description(self) -> str:
        """What a saved state must have in common with this run, as JSON."""
        settings = asdict(self.settings)
        # How often a state is saved has no part in what is trained.
        del settings["save_every_s"]
        run = {
            "architecture": asdict(cast(Any, self.model.architecture)),
            "examples": self.objective.description | {"sha256": self.objective.sha256},
            "settings": settings,
        }
        return json.dumps(run, sort_keys=True)

    def _restore(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a saved training state ({error}); remove it to start anew") from error
        if header.get("run") != self._description():
            raise ValueError(f"{path}: the state of a run with other settings or images; remove it to start anew")
        try:
            for module, prefix in ((self.model, "model."), (self.average, "average.")):
                module.load_state_dict({name: tensors[prefix + name] for name in module.state_dict()})
            state = self.optimizer.state_dict()
            names = ("step", "exp_avg", "exp_avg_sq")
            step = int(header["step"])
            count = len(state["param_groups"][0]["params"]) if step else 0
            state["state"] = {
                index: {name: tensors[f"optimizer.{index}.{name}"] for name in names} for index in range(count)
            }
            self.optimizer.load_state_dict(state)
            self.losses = tensors["losses"].tolist()
            self._pending = tensors["pending"].to(self.device)
            self.step = step
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: the saved training state is incomplete; remove it to start anew") from error


def forgotten(losses: list[float]) -> float | None:
    """The least loss of a run whose loss is back where it began, None for any other.

    Parameters
    ----------
    losses : list of float
        Mean losses, in order; fewer than three times `WINDOW` are too few to tell.
    """
    if len(losses) < 3 * WINDOW:
        return None
    means = [math.fsum(losses[first : first + WINDOW]) / WINDOW for first in range(0, len(losses) - WINDOW + 1, WINDOW)]
    now = math.fsum(losses[-WINDOW:]) / WINDOW
    best, began = min(means), losses[0]
    return best if now > 0.95 * began and best < 0.8 * began else None
