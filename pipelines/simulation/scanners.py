"""The scanners that a simulated header can name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scanner:
    """The system of one vendor in the header."""

    vendor: str | None
    model: str | None
    field_strength_t: float
    coil_name: str
    fourier_sign: int = 1  # -1: directions are those of a k-space of the other sign (gadgets/image_headers.py)


VENDORS = {
    "SIEMENS": Scanner("SIEMENS", "Skyra", 2.89362, "HeadNeck_20:1:H{}", -1),
    "GE MEDICAL SYSTEMS": Scanner("GE MEDICAL SYSTEMS", "SIGNA Premier", 3.0, "48HeadCoil:{}"),
    "Philips": Scanner("Philips", "Ingenia", 3.0, "dS-Head-32ch:{}"),
    "generic": Scanner(None, None, 1.5, "Coil {}"),
}
