"""The optimiser of a training run, which can be stopped at any time and taken up again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import distributed, nn

from priors.learning.networks import EdmDenoiser, channels_last
from priors.learning.training import Examples, TrainingSettings, denoising_loss


class Trainer:
    """Training run that can be stopped at any time and taken up again as if nothing had happened.

    Parameters
    ----------
    model : EdmDenoiser
        Network to train, on the device to train on.
    examples : Examples
        What to learn from: `ImageCrops`, or the patches of one scan (`priors.hkgm`).
    settings : TrainingSettings
        Settings of the run.
    state_path : Path, optional
        File that keeps the state of the run (safetensors); taken up again where it exists.

    Attributes
    ----------
    average : EdmDenoiser
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
        model: EdmDenoiser,
        examples: Examples,
        settings: TrainingSettings,
        state_path: Path | None = None,
    ) -> None:
        self.model = channels_last(model).train()
        self.device = next(model.parameters()).device
        self.examples = examples
        self.examples.to(self.device)
        self.settings = settings
        self.state_path = state_path
        self.average = EdmDenoiser(model.architecture).to(self.device).requires_grad_(False)
        self.average.load_state_dict(model.state_dict())
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
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
            If the loss is not finite.
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
        weighted = self.examples.draw(settings.batch, generator)
        sigma = settings.sigma.sample(len(weighted), generator).to(self.device)
        architecture = self.model.architecture
        shape = (len(weighted), architecture.copies, *weighted.shape[-2:])
        noise = math.sqrt(2) * torch.randn(shape, dtype=weighted.dtype, generator=noise_generator, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = denoising_loss(self._network, weighted, sigma, noise, architecture.sigma_data)
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
        self._pending += loss.detach()
        self.step += 1
        self._whole = True

    def _note_loss(self, progress: Callable[[int, float], None] | None) -> None:
        loss = float(self._pending) / 10
        self._pending.zero_()
        if not math.isfinite(loss):
            raise ValueError(f"training: the loss is {loss} at step {self.step}; lower the learning rate")
        self.losses.append(loss)
        if progress is not None:
            progress(self.step, loss)

    def _description(self) -> str:
        """What a saved state must have in common with this run, as JSON."""
        settings = asdict(self.settings)
        # How often a state is saved has no part in what is trained.
        del settings["save_every_s"]
        run = {
            "architecture": asdict(self.model.architecture),
            "examples": self.examples.description | {"sha256": self.examples.sha256},
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
