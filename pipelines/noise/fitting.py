"""Whether a noise or reference scan is for the scan at hand, and what images say of it."""

from __future__ import annotations

import logging
from typing import Any

import ismrmrd

from gadgets.noise.coils import coils_of
from gadgets.noise.scan import OLDEST, AnyScan, ChosenNoise, NoiseScan, age_of, conflict
from gadgets.reference_scan import ChosenReference, ReferenceScan

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
    found = _fitted(noise, header, first, asked_for, "noise", "the data are not prewhitened with it")
    return found and ChosenNoise(*found, noise.name)


def fitted_reference(
    reference: ReferenceScan, header: Any, first: ismrmrd.AcquisitionHeader, *, asked_for: bool = False
) -> ChosenReference | None:
    """The reference scan with the coils of a scan, in their order; parameters and warnings are those of `fitted`."""
    unused = "its coil maps are not used"
    found = _fitted(reference, header, first, asked_for, "reference scan", unused)
    return found and ChosenReference(*found, reference.name)


def _fitted(
    scan: AnyScan,
    header: Any,
    first: ismrmrd.AcquisitionHeader,
    asked_for: bool,
    kind: str,
    consequence: str,
) -> tuple[AnyScan, str] | None:
    """An earlier scan with the coils of a scan, in their order, and what images say of it."""
    what = f"the {kind} of {scan.origin}"
    if differing := conflict(scan, header):
        text = "it is used all the same" if asked_for else "it is not used"
        log.warning("%s differs from the scan in: %s; %s", what, differing, text)
        if not asked_for:
            return None
    matched = scan.for_coils(coils_of(header), first.active_channels)
    if matched is None:
        log.warning(
            "%s has %d coils, not those of the scan (%d); %s",
            what,
            scan.channels,
            first.active_channels,
            consequence,
        )
        return None
    text = scan.origin
    if found := age_of(scan, header, first.acquisition_time_stamp):
        age, words = found
        text += f", {words}"
        if age > OLDEST or age.total_seconds() < 0:
            log.warning("%s is %s than the scan; measure the %s shortly before the scan", what, words, kind)
    return matched, text
