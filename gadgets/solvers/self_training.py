"""`training=self`: the prior goes on learning from the scan, and what it learnt is kept for the protocol."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gadgets.solvers.prior_cache import PriorCache, default_folder
from gadgets.stream import one_line, reason_of
from priors.learning.cards import FORMAT, ModelCard
from priors.learning.self_calibration import SelfCalibration, self_calibrated
from priors.learning.training import TrainingSettings
from priors.prior import Prior
from priors.settings import ReconstructionSettings
from priors.weighted_kspace import WeightedKspacePrior

log = logging.getLogger("genrecon")

VERSION = 2  # of what is learnt and how; another one does not find the priors of this one
SETTINGS = TrainingSettings(steps=150, learning_rate=2e-4, warm_up=5, ema=0.98)
DRAFTS = 4  # slices that are learnt from before any is reconstructed
SECOND_LOOK = 4  # reconstructed slices, after which it learns once more
KEPT = 16  # reconstructed slices that are learnt from
SHARE = 0.5  # of the budget for the first time, where there is a second one


class SelfTraining:
    """The prior of a scan, from the cache or learnt in it.

    Parameters
    ----------
    parameters : properties of the gadget
    header : header of the scan
    prior, card : prior to begin with
    images : how many images the scan will have

    Attributes
    ----------
    prior : prior to reconstruct with
    note : what was done, for the images' meta
    """

    def __init__(self, parameters: Any, header: Any, prior: Prior, card: ModelCard, images: int) -> None:
        assert isinstance(prior, WeightedKspacePrior)
        self.prior, self.note = prior, ""
        self._card = card
        self._left = float(parameters.training_budget_s)
        self._looks = 2 if images > SECOND_LOOK else 1
        self._reconstructed: list[Tensor] = []
        self._protocol = protocol(header)
        text = json.dumps([VERSION, FORMAT, card.training_data_sha256, card.steps, asdict(SETTINGS), self._protocol])
        self._key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._cache: PriorCache | None = None
        if parameters.training_cache:
            self._cache = PriorCache(Path(parameters.training_cache).expanduser())
        elif self._protocol["protocol"]:  # scans without a name may be anything
            try:
                self._cache = PriorCache(default_folder())
            except RuntimeError as error:  # a user without a home
                log.warning("training_cache: %s; give a folder", one_line(error))
        self._look_up()

    def _look_up(self) -> None:
        if self._cache is None:
            return
        try:
            found = self._cache.get(self._key)
        except (ValueError, OSError) as error:
            log.warning("training_cache: %s", one_line(error))
            return
        if found is None:
            return
        device = next(self.prior.model.parameters()).device
        cached, card = found
        self.prior = self.prior.with_model(cached.model.to(device))
        self._looks = 0
        self.note = f"learnt before, {card.date}, from a scan of the same protocol and coils ({self._key[:8]})"
        log.info("training: %s", self.note)

    def due(self, mask: Tensor) -> bool:
        """Whether it is time to learn from slices of this sampling mask, (batch, 1, y, x)."""
        waits = self._reconstructed and len(self._reconstructed) < SECOND_LOOK
        return bool(self._looks and not waits and not mask.all())

    def look(
        self,
        kspace: Tensor,
        mask: Tensor,
        maps: Tensor,
        noise: Tensor,
        settings: ReconstructionSettings,
        seconds: float,
    ) -> str:
        """Learn from slices that are about to be reconstructed and from those that were, when it is `due`.

        Parameters
        ----------
        kspace, mask, maps, noise : problems of signal level 1, as `generative` takes them, on the prior's device
        settings : how they will be reconstructed
        seconds : time there is besides the budget

        Returns
        -------
        str
            What users must be warned of, else empty.
        """
        budget = min(self._left * (SHARE if self._looks > 1 else 1.0), seconds)
        self._looks -= 1
        began = time.monotonic()
        strongest = torch.linalg.vector_norm(kspace.flatten(1), dim=1).argsort(descending=True)
        some = strongest[: DRAFTS if not self._reconstructed else 1]
        alike = [image for image in self._reconstructed if image.shape == kspace.shape[-2:]]
        try:
            found = self_calibrated(
                self.prior,
                kspace[some],
                mask.expand(len(kspace), -1, -1, -1)[some],
                maps[some],
                torch.stack(alike).to(kspace.device) if alike else None,
                settings,
                SETTINGS,
                noise=noise[some],
                seconds=budget,
            )
        except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
            log.info("traceback", exc_info=error)
            found = f"it failed: {one_line(error)}"
        finally:
            self._left -= time.monotonic() - began
            self._reconstructed.clear()
        if isinstance(found, str):
            log.warning("training: nothing was learnt from the scan: %s", found)
            self.note = self.note or f"nothing was learnt from the scan: {found}"
            return f"nothing was learnt from the scan (training=self): {found}" if not self._looks else ""
        self.prior = found.prior
        result = "kept" if found.learnt else "dropped, the prior of before was better"
        self.note = (
            f"{found.steps} steps on the scan in {time.monotonic() - began:.0f} s, {result}: error of held-out samples "
            f"{found.after:.4f}, before {found.before:.4f}"
        )
        log.info("training: %s", self.note)
        self._keep(found)
        return ""

    def reconstructed(self, images: Tensor) -> None:
        """Remember reconstructed images (batch, y, x), as far as they are still to be learnt from."""
        if self._looks:
            self._reconstructed += list(images[: KEPT - len(self._reconstructed)].cpu())

    def _keep(self, found: SelfCalibration) -> None:
        """Put the prior into the cache; the scan goes on where that fails."""
        if self._cache is None:
            return
        where = ", ".join(f"{name} {value}" for name, value in self._protocol.items() if value)
        card = replace(
            self._card,
            name="hkgm-self",
            options=self._card.options | {"architecture": asdict(found.prior.model.architecture)},
            training_data=f"{self._card.training_data}; then {found.steps} steps on slices of a scan: {where}"
            if found.learnt
            else self._card.training_data,
            training_data_sha256=found.sha256,
            steps=self._card.steps + (found.steps if found.learnt else 0),
            date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            licence="of the site that scanned",
            quality={"error of held-out samples before": found.before, "error of held-out samples": found.after},
        )
        try:
            self._cache.put(self._key, found.prior.model, card)
        except OSError as error:
            log.warning(
                "training_cache: %s cannot be written to (%s); the next scan learns anew",
                self._cache.folder,
                reason_of(error),
            )


def protocol(header: Any) -> dict[str, str]:
    """What scans must have in common to share a prior, from the header; nothing of the patient.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    """
    system, measurement = header.acquisitionSystemInformation, header.measurementInformation

    def text(value: Any) -> str:
        return "" if value is None else str(value)

    coils = [text(label.coilName) for label in system.coilLabel] if system else []
    return {
        "protocol": text(measurement.protocolName) if measurement else "",
        "vendor": text(system.systemVendor) if system else "",
        "model": text(system.systemModel) if system else "",
        "field": text(system.systemFieldStrength_T) if system else "",
        "channels": text(system.receiverChannels) if system else "",
        "coils": " ".join(sorted(coils)),
        "encoding": "; ".join(_encoding(encoding) for encoding in header.encoding),
    }


def _encoding(encoding: Any) -> str:
    space, imaging = encoding.reconSpace, encoding.parallelImaging
    size, fov = space.matrixSize, space.fieldOfView_mm
    factors = imaging.accelerationFactor if imaging else None
    rate = f", acceleration {factors.kspace_encoding_step_1} x {factors.kspace_encoding_step_2}" if factors else ""
    return f"{size.x} x {size.y} x {size.z}, {fov.x:g} x {fov.y:g} x {fov.z:g} mm{rate}"
