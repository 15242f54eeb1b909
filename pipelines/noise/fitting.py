"""Whether a noise scan is for the scan at hand, and what images say of it."""

from __future__ import annotations

import logging
from typing import Any

import ismrmrd

from gadgets.noise.coils import coils_of
from gadgets.noise.scan import OLDEST, ChosenNoise, NoiseScan, age_of, conflict

log = logging.getLogger("genrecon")


def fitted(
    noise: NoiseScan, header: Any, first: ismrmrd.AcquisitionHeader, *, asked_for: bool = False
) -> ChosenNoise | None:
    """The noise scan with the coils of a scan, in their order; None, with a warning, where it is not for that scan.

    Parameters
    ----------
    noise : as it was measured
    header : of the scan
    first : header of its first line that is not noise
    asked_for : the user named this noise: it is taken though scanner or patient seem to be others
    """
    what = f"the noise of {noise.origin}"
    if differing := conflict(noise, header):
        text = "it is used all the same" if asked_for else "it is not used"
        log.warning("%s differs from the scan in: %s; %s", what, differing, text)
        if not asked_for:
            return None
    matched = noise.for_coils(coils_of(header), first.active_channels)
    if matched is None:
        log.warning(
            "%s has %d coils, not those of the scan (%d); the data are not prewhitened with it",
            what,
            len(noise.covariance),
            first.active_channels,
        )
        return None
    text = noise.origin
    if found := age_of(noise, header, first.acquisition_time_stamp):
        age, words = found
        text += f", {words}"
        if age > OLDEST or age.total_seconds() < 0:
            log.warning("%s is %s than the scan; measure noise shortly before the scan", what, words)
    return ChosenNoise(matched, text, noise.name)
