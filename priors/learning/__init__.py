"""Networks, noise schedules, training, checkpoints."""
