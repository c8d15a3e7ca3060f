"""What a person at a terminal reads of an event: a sentence, where a log has fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SENTENCES: Final = {
    "run.failed": "{run_id} failed: {message}",
    "run.attempt_failed": "{run_id} is tried again: {message}",
    "run.lease_lost": "{run_id} was cancelled, or is another process's now",
    "service.blocked": "blocked: {message}",
    "service.unblocked": "it goes on ({scope})",
    "service.cut_off": "what was running is cut off",
    "api.no_answer": "{message} Its runs are asked for later.",
    "api.down": "{message} It is asked until it answers.",
    "api.back": "the API answers again, after {seconds} s",
    "runs.rescued": "{runs} taken back from processes that had died",
    "clock.set": "the clock was set by {seconds} s, or this machine was suspended",
    "hook.failed": "the hook of {run_id} failed: {detail}",
    "hook.timeout": "the hook of {run_id} took too long: {detail}",
    "hook.interrupted": "the hook of {run_id} was ended with the service: {detail}",
    "hooks.not_run": "{runs} hooks were not run; {hint}",
    "hooks.not_claimed": "which hooks are due cannot be read: {message}",
    "hook.not_recorded": "that {runs} hooks have run cannot be recorded: {message}",
    "library.warning": "{library}: {message}",
}


def in_words(event: Mapping[str, Any]) -> str | None:
    """Return an event as a sentence; None where there is none for it."""
    name = event["event"]
    if name == "service.stopping":
        return _stopping(event)
    sentence = _SENTENCES.get(name)
    if sentence is None and "message" in event:
        sentence = "{run_id}: {message}" if "run_id" in event else "{message}"
    if sentence is None:
        return None
    try:
        return sentence.format_map(event)
    except KeyError:  # told by somebody who knows less of it
        return None


def _stopping(event: Mapping[str, Any]) -> str:
    transfers, hooks = event["transfers"], event.get("hooks", 0)
    running = [
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((transfers, "transfer"), (hooks, "hook"))
        if number
    ]
    if not running:
        return f"stopping ({event['reason']})"
    return (
        f"{' and '.join(running)} may end, at most {event['grace_seconds']:g} s; "
        "Ctrl-C again cuts them off"
    )
