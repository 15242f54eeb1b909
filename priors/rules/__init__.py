"""Rules: how a prior and the data take turns. `priors.rules.rule` lists them by name."""
