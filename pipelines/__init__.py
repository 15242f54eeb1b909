"""Run chains of gadgets: replay, server, simulation, training, evaluation and the command line.

The names in `__all__` are public: they keep their names, arguments and meaning. All other modules are internal, and may
change at any time; the command line (`genrecon`) and the XML of chains are public too.
"""

from typing import TYPE_CHECKING

import priors as priors  # first: it sets the environment that torch reads when it is imported
from priors.exports import export

if TYPE_CHECKING:
    from gadgets.errors import ReconError as ReconError
    from pipelines.chain import Chain as Chain
    from pipelines.chain import read_chain as read_chain
    from pipelines.replay import ReplayResult as ReplayResult
    from pipelines.replay import read_images as read_images
    from pipelines.replay import replay as replay
    from pipelines.simulation.arrays import scan_arrays as scan_arrays
    from pipelines.simulation.brain import BRAIN_SCAN as BRAIN_SCAN
    from pipelines.simulation.brain import brain_scan as brain_scan
    from pipelines.simulation.scan import simulate as simulate
    from pipelines.simulation.settings import SimulationSettings as SimulationSettings
    from pipelines.simulation.writer import read_truth as read_truth
    from pipelines.simulation.writer import write_raw as write_raw

__all__ = export(
    __name__,
    {
        **dict.fromkeys(("replay", "ReplayResult", "read_images"), "pipelines.replay"),
        **dict.fromkeys(("Chain", "read_chain"), "pipelines.chain"),
        "SimulationSettings": "pipelines.simulation.settings",
        "simulate": "pipelines.simulation.scan",
        **dict.fromkeys(("brain_scan", "BRAIN_SCAN"), "pipelines.simulation.brain"),
        "scan_arrays": "pipelines.simulation.arrays",
        **dict.fromkeys(("write_raw", "read_truth"), "pipelines.simulation.writer"),
        "ReconError": "gadgets.errors",
    },
)
