"""Simulated raw data with known truth: phantom, coils, sampling patterns, header, writer."""

from pipelines.simulation.scan import Simulation, simulate
from pipelines.simulation.settings import SimulationSettings
from pipelines.simulation.writer import write_raw

__all__ = ["Simulation", "SimulationSettings", "simulate", "write_raw"]
