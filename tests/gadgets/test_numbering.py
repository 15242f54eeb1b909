"""Numbers of images, each given once."""

from __future__ import annotations

from gadgets.numbering import Numbers


def test_wanted_numbers_are_given_in_any_order() -> None:
    numbers = Numbers(100)
    assert [numbers.take(number) for number in (5, 1, 100, 3)] == [5, 1, 100, 3]


def test_a_number_that_was_given_is_replaced_by_the_next() -> None:
    numbers = Numbers(100)
    assert [numbers.take(number) for number in (1, 2, 1, 2, 9, 1)] == [1, 2, 3, 4, 9, 10]


def test_numbers_above_the_highest_are_free_ones() -> None:
    numbers = Numbers(4)
    assert [numbers.take(number) for number in (4, 7, 2, 9)] == [4, 1, 2, 3]


def test_all_numbers_given() -> None:
    numbers = Numbers(3)
    assert [numbers.take(1) for _ in range(4)] == [1, 2, 3, 1]
