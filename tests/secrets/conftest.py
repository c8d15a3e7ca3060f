"""What the tests of secrets share: signatures that are known, and every logger's voice."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from spilling import API_KEY, Listener, Secrets

from downloader.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import MakeService, Program, Service, StartSimulator

    from downloader.simulator.server import Simulator


@pytest.fixture
def secrets() -> Secrets:
    """Know the key, and the signature of each URL that is issued."""
    return Secrets()


@pytest.fixture
def watched(start_simulator: StartSimulator, secrets: Secrets) -> StartSimulator:
    """Start simulators whose URLs are taken note of, as `start_simulator` does."""

    def start(**options: object) -> Simulator:
        simulator = start_simulator(**options)
        secrets.watch(simulator)
        return simulator

    return start


@pytest.fixture
def keyed_service(make_service: MakeService) -> Callable[[Simulator], Service]:
    """Make the service, as `make_service` does, with the key that is looked for."""

    def make(simulator: Simulator) -> Service:
        made = make_service(simulator)
        made.settings = replace(made.settings, api_key=API_KEY)
        return made

    return make


@pytest.fixture
def keyed_program(program: Program) -> Program:
    """Give the program the key that is looked for."""
    program.env["CAMB_API_KEY"] = API_KEY
    return program


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Configure logs as `-vv` does, and listen to every logger there is, each at its loudest."""
    before = {one: (one.level, one.disabled, one.propagate, one.handlers[:]) for one in _loggers()}
    heard = Listener()
    logs.configure(2)
    for one in _loggers():
        one.setLevel(logging.DEBUG)
        one.addHandler(heard)
    # A library that turns its own logger down later is not let.
    monkeypatch.setattr(logging.Logger, "setLevel", lambda *_: None)
    yield heard
    monkeypatch.undo()
    for one in _loggers():
        level, disabled, propagate, handlers = before.get(one, (logging.NOTSET, False, True, []))
        one.setLevel(level)
        one.disabled, one.propagate, one.handlers = disabled, propagate, handlers


def _loggers() -> list[logging.Logger]:
    """Return the root logger and all others that are there."""
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(one for one in named if isinstance(one, logging.Logger))]
