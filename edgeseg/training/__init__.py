"""Training: loop, losses, schedule, averaging, checkpoints, evaluation, and the state that survives `kill -9`."""
