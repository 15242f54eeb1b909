"""Numbers of images, each given once."""

from __future__ import annotations


class Numbers:
    """Numbers from 1 to `highest`, each given once as long as there are any.

    Parameters
    ----------
    highest : the highest number there is
    """

    def __init__(self, highest: int) -> None:
        self._highest = highest
        self._taken: set[int] = set()
        self._last = 0  # highest one that was given
        self._lowest = 1  # all numbers below it are taken

    def take(self, wanted: int) -> int:
        """The wanted number; if it was given before, or there is no such number, the one after the last, or a free one.

        When all are given it is the wanted one modulo `highest`.
        """
        number = wanted
        if not 1 <= number <= self._highest or number in self._taken:
            number = self._last + 1
        while number > self._highest or number in self._taken:
            if self._lowest > self._highest:
                return (wanted - 1) % self._highest + 1
            number = self._lowest
            self._lowest += 1
        self._taken.add(number)
        self._last = max(self._last, number)
        return number
