"""How far a scan is: what its header announces, and how many of its lines have come."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ismrmrd

from gadgets.acquisition_flags import is_for_images
from gadgets.acquisitions import IMAGE_COUNTERS, calibration_mode
from gadgets.outputs import MAGNITUDE, asked_outputs
from gadgets.solvers.budget import expected_images
from pipelines.chain import Chain

REPORT_INTERVAL_S = 0.25
RECONSTRUCTION = "generative_recon"  # gadget, and its name as a member of a composite one
REFERENCE_LINES = ("EmbeddedRefLinesE1", "EmbeddedRefLinesE2")  # userParameterLong of Siemens


def method_of(chain: Chain, longest_budget_s: float) -> tuple[str, float]:
    """Method of a chain and its time budget in seconds.

    Parameters
    ----------
    chain : with the server's settings
    longest_budget_s : that the server gives to a method that has none of its own

    Returns
    -------
    The method, "" where the chain does not tell; the budget, 0 where it has none of its own
    """
    for node in chain.nodes:
        for prefix in (f"{RECONSTRUCTION}.", ""):
            if method := node.properties.get(f"{prefix}method"):
                budget = 0.0
                with contextlib.suppress(ValueError):
                    budget = float(node.properties.get(f"{prefix}time_budget_s", "0"))
                return method, budget if 0 < budget < longest_budget_s else 0.0
    return "", 0.0


def announced_images(header: Any, chain: Chain) -> int:
    """How many images a header announces for a chain, one for each volume in 3D and each series; at least one."""
    properties: dict[str, str] = {}
    for node in chain.nodes:
        for name, value in node.properties.items():
            properties[name.removeprefix(f"{RECONSTRUCTION}.")] = value
    series = 1
    with contextlib.suppress(ValueError):  # the gadget says what is wrong
        series = len(asked_outputs(properties.get("output", MAGNITUDE.name)))
    series += properties.get("samples", "1") not in ("", "1")  # standard deviations
    return expected_images(header, properties.get("average", "true") != "false") * series


def announced_lines(header: Any) -> int:
    """About how many lines for images a header announces; 0 where it does not.

    Limits of the phase encodings, divided by the accelerations, with the reference lines of embedded and separate
    calibration that Siemens' parameters name, times all loops.
    """
    total = 0
    parameters = header.userParameters.userParameterLong if header.userParameters else []
    named = {one.name: one.value for one in parameters}
    for encoding in header.encoding:
        limits = encoding.encodingLimits
        steps = (limits.kspace_encoding_step_1, limits.kspace_encoding_step_2)
        if steps[0] is None:
            return 0
        factor = encoding.parallelImaging.accelerationFactor if encoding.parallelImaging else None
        factors = (factor.kspace_encoding_step_1, factor.kspace_encoding_step_2) if factor else (1, 1)
        full = [limit.maximum - limit.minimum + 1 if limit else 1 for limit in steps]
        lines = math.prod(-(-count // max(each, 1)) for count, each in zip(full, factors, strict=True))
        mode = calibration_mode(encoding)
        wanted = [min(named.get(name, 0), count) for name, count in zip(REFERENCE_LINES, full, strict=True)]
        if mode in ("embedded", "separate") and wanted[0] > 0:
            reference = wanted[0] * (wanted[1] or full[1])
            lines += reference - (reference // max(math.prod(factors), 1) if mode == "embedded" else 0)
        loops = 1
        for name in IMAGE_COUNTERS:
            limit = getattr(limits, name)
            loops *= limit.maximum + 1 if limit else 1
        total += lines * loops
    return total


class LineCounter:
    """Counts the lines of a scan as they come, and reports `received` from a thread of its own, while they change.

    Parameters
    ----------
    report : called with "received" and (number of lines for images, whether all data came)
    """

    def __init__(self, report: Callable[[str, Any], None]) -> None:
        self._report = report
        self._state = (0, False)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line counter", daemon=True)

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items of the scan, counted."""
        self._thread.start()
        lines = 0
        for item in items:
            lines += isinstance(item, ismrmrd.Acquisition) and is_for_images(item)
            self._state = lines, False
            yield item
        self._state = lines, True

    def stop(self) -> None:
        """Report for the last time."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        reported = (0, False)
        while True:
            stopped = self._stopped.wait(REPORT_INTERVAL_S)
            if (state := self._state) != reported:
                self._report("received", state)
                reported = state
            if stopped:
                return
