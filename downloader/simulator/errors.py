"""The one error of the simulator that is meant for its user."""

from __future__ import annotations


class SimulatorError(Exception):
    """The simulator cannot do what it was asked to: a bad option or rule, or a port in use."""
