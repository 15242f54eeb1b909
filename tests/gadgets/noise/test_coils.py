"""Which coil of a noise scan is which coil of the data."""

from __future__ import annotations

import pytest

from gadgets.noise.coils import Coil, coil_order


def coils(*labels):
    return [Coil(*label) if isinstance(label, tuple) else Coil(0, label) for label in labels]


@pytest.mark.parametrize(
    ("noise", "data", "expected"),
    [
        (coils("A", "B", "C"), coils("A", "B", "C"), [0, 1, 2]),
        (coils("A", "B", "C"), coils("C", "A", "B"), [2, 0, 1]),
        (coils("A", "B", "C", "D"), coils("D", "B"), [3, 1]),
        (coils("A", "B"), coils("A", "X"), None),
        (coils("A", "B"), coils("A", "B", "C"), None),
        (coils((1, "A"), (2, "A")), coils((2, "A"), (1, "A")), [1, 0]),
        (coils((7, ""), (5, "")), coils((5, ""), (7, "")), [1, 0]),
        (coils((1, "A"), (2, "B")), coils((9, "B"), (8, "A")), [1, 0]),
        (coils("A", "A"), coils("A", "A"), [0, 1]),
    ],
    ids=["equal", "order", "fewer", "another", "more", "numbers too", "numbers", "names first", "no difference"],
)
def test_coils_by_their_labels(noise, data, expected):
    assert coil_order(noise, len(noise), data, len(data)) == expected


def test_labels_that_are_not_one_for_each_channel_do_not_count():
    assert coil_order(coils("A", "B", "C"), 2, coils("B", "A"), 2) == [0, 1]
    assert coil_order([], 2, coils("B", "A"), 2) == [0, 1]
    assert coil_order([], 3, coils("B", "A"), 2) is None
