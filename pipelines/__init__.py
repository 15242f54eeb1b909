"""Run chains of gadgets: replay, server, simulation, training, evaluation and the command line."""

import priors as priors  # first: it sets the environment that torch reads when it is imported
