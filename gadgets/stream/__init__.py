"""The loop every gadget runs in: parameters, one thread a stage, sockets, errors that a server survives.

Modules of this package import from here; gadgets of your own import from `gadgets`.
"""

from gadgets.errors import PeerGone, ReconError, one_line, reason_of
from gadgets.stream.gadget import Gadget
from gadgets.stream.parameters import parameter, read_parameters
from gadgets.stream.stages import Stage, StageTiming, run_stages

__all__ = [
    "Gadget",
    "PeerGone",
    "ReconError",
    "Stage",
    "StageTiming",
    "one_line",
    "parameter",
    "read_parameters",
    "reason_of",
    "run_stages",
]
