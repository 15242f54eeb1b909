"""Whether images have all of their lines, compared with other images of the scan and with the header."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadgets.acquisition_flags import is_calibration

Array = np.ndarray[Any, np.dtype[Any]]

OF_OTHERS = 3 / 4  # of the lines that other images have; patterns of random lines differ by less
OF_ACCELERATED = 1 / 2  # of the lines that the header's acceleration leaves; partial Fourier has more
OF_ALL = 1 / 16  # of all lines, where the header names no acceleration


class LineCounts:
    """Counts lines of the images of a scan as they come.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader

    Attributes
    ----------
    images, incomplete : how many images came, and how many of them have a fraction of their lines
    """

    def __init__(self, header: Any) -> None:
        self._header = header
        self._most: dict[int, int] = {}  # lines of an image without those for calibration, by encoding space
        self.images = self.incomplete = 0

    def doubt(self, space: int, mask: Array, headers: Array) -> str:
        """Take an image into account; what must be said of it, "" if it has its lines.

        Parameters
        ----------
        space : its encoding space
        mask : bool (E1, E2), lines that came, calibration lines among them
        headers : object array (E1, E2) of their acquisition headers
        """
        came = int(mask.sum())
        plain = sum(bool(head.number_of_samples) and not is_calibration(head) for head in headers.flat)
        most = self._most[space] = max(self._most.get(space, 0), plain)
        self.images += 1
        expected = self._expected(space, mask.size)
        text = ""
        if came and came < OF_OTHERS * most:
            text = f"only {came} lines came, other images have {most}: the image is not complete"
        elif came and came < expected:
            text = f"only {came} of {mask.size} lines came: the image is not complete"
        self.incomplete += bool(text)
        return text

    def _expected(self, space: int, lines: int) -> float:
        """Fewest lines that make an image by the header."""
        parallel = self._header.encoding[space].parallelImaging
        factor = parallel.accelerationFactor if parallel else None
        acceleration = factor.kspace_encoding_step_1 * factor.kspace_encoding_step_2 if factor else 1
        return lines * (OF_ACCELERATED / acceleration if acceleration > 1 else OF_ALL)
