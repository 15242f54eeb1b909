"""The loop every gadget runs in: parameters, stages in threads, sockets, and failing safely.

What a gadget's author needs is imported from here; the rest has its own modules.
"""

from gadgets.stream.errors import PeerGone, ReconError, one_line, reason_of
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
