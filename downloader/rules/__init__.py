"""Pure decisions: no I/O, no clock, no randomness; now and jitter are arguments."""
