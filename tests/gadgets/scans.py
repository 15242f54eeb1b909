"""Scans as they reach the gadgets of the reconstruction."""

from __future__ import annotations

from gadgetron.types import ReconData

from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate

BASE = {"matrix": (32, 32, 1), "coils": 4, "sampling": "uniform", "acceleration": 2, "calibration_lines": 12}


def buffered(**changes):
    """Header and ReconData as they reach the reconstruction gadgets."""
    simulation = simulate(SimulationSettings(**{**BASE, **changes}))
    chain = read_chain("cg_sense")
    names = [node.names[0] for node in chain.nodes]
    del chain.nodes[names.index("reconstruction") :]
    return simulation.header, list(chain.run(simulation.header, simulation.acquisitions()))


def run(header, items, kind, **properties):
    gadget = kind()
    gadget.configure(header, {name: str(value) for name, value in properties.items()})
    return list(gadget.process(iter(items)))


def two_spaces():
    """Header and two repetitions, only the first with calibration, of two encoding spaces of other matrix sizes."""
    header, small = buffered(repetitions=2, calibration_repetitions="first", matrix=(24, 24, 1), coils=6)
    other, large = buffered(repetitions=2, calibration_repetitions="first", matrix=(40, 32, 1), coils=6, seed=3)
    header.encoding.append(other.encoding[0])
    for item in large:
        for buffer in (item[0].data, item[0].ref):
            for line in buffer.headers.flat if buffer is not None else ():
                line.encoding_space_ref = 1
    return header, [ReconData([first[0], second[0]]) for first, second in zip(small, large, strict=True)]
