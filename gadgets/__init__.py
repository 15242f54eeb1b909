"""Gadgets: stream item in, stream item out; the floor that knows ISMRMRD, Gadgetron and DICOM.

Public are the names in `__all__`, for gadgets of your own (docs/add_a_gadget.md), and the names and properties that
chains give in XML (docs/gadgets.md). All other modules are internal, and may change at any time.
"""

from typing import TYPE_CHECKING

import priors as priors  # first: it sets the environment that torch reads when it is imported
from priors.exports import export

if TYPE_CHECKING:
    from gadgets.errors import ReconError as ReconError
    from gadgets.stream.gadget import Gadget as Gadget
    from gadgets.stream.parameters import parameter as parameter

__all__ = export(
    __name__,
    {
        "Gadget": "gadgets.stream.gadget",
        "parameter": "gadgets.stream.parameters",
        "ReconError": "gadgets.errors",
    },
)
