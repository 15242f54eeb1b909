"""Coils of a noise scan, compared with those of the scan that is to be prewhitened."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple


class Coil(NamedTuple):
    """A receive channel, as the header labels it."""

    number: int
    name: str


def coils_of(header: Any) -> tuple[Coil, ...]:
    """The coil labels of an ISMRMRD header, in the order of the channels."""
    system = header.acquisitionSystemInformation
    labels = system.coilLabel if system else []
    return tuple(Coil(int(label.coilNumber or 0), (label.coilName or "").strip()) for label in labels)


# What may tell the coils of a scan apart, best first; Gadgetron's own gadget compares names.
_KEYS: tuple[Callable[[Coil], Hashable], ...] = (
    lambda coil: coil.name,
    lambda coil: coil,
    lambda coil: coil.number,
)


def coil_order(noise: Sequence[Coil], noise_count: int, data: Sequence[Coil], data_count: int) -> list[int] | None:
    """For each coil of the data the place of the same coil in the noise scan; None where the two do not fit.

    Labels count where there is one for each channel and they tell all channels apart; a noise scan may have more coils
    than the data, in any order. Without labels on both sides, equal numbers of coils are in equal order.

    Parameters
    ----------
    noise, data : coil labels
    noise_count, data_count : numbers of channels
    """
    if len(noise) == noise_count and len(data) == data_count:
        for key in _KEYS:
            places = {key(coil): place for place, coil in enumerate(noise)}
            wanted = [key(coil) for coil in data]
            tells_apart = len(places) == noise_count and len(set(wanted)) == data_count
            if tells_apart and "" not in places and "" not in wanted:
                return [places[label] for label in wanted] if set(wanted) <= set(places) else None
    return list(range(data_count)) if noise_count == data_count else None
