"""Measurements: `python -m benchmarks.NAME`."""

import priors as priors  # first: it sets the environment that torch reads when it is imported
