"""One call of a hook, from its start to its end, whatever it does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.bell import Bell
from downloader.hooks.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_END_SECONDS: Final = 2.0
"""How long a hook has to end by itself after SIGTERM, before SIGKILL."""

_CUT_OFF_SECONDS: Final = 0.5
"""The same, where the service itself is to end at once."""

_LOOK_SECONDS: Final = 3600.0
"""poll(2) counts milliseconds, and not for ever."""

_CHUNK_BYTES: Final = 65_536
_MOST_LEFT_BYTES: Final = 1024 * 1024
"""So much is read after a hook has ended: what it left in the background may print for ever."""


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended: for the history, and for the log."""

    reason: str
    detail: str
    output: str = ""


class HookCall:
    """Runs a hook in a process group of its own; `run` blocks, `cut_off` and `kill` do not."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[bytes, bytes],
        told: bytes,
        timeout_seconds: float,
        secret: str,
    ) -> None:
        self._command = command
        self._environment = environment
        self._told = memoryview(told)
        self._timeout_seconds = timeout_seconds
        self._output = Output(secret)
        self._bell: Bell | None = None
        self._lock = threading.Lock()  # of the process' number, and of the bell as it is closed
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False
        self._exited = False
        self._cut_off = False
        self._killed = False

    def cut_off(self) -> None:
        """Have it end at once: SIGTERM, and shortly after SIGKILL; from any thread."""
        self._cut_off = True
        self._ring()

    def kill(self) -> None:
        """End it and its children now; from any thread."""
        self._cut_off = self._killed = True
        self._signal(signal.SIGKILL)
        self._ring()

    def run(self) -> HookResult:
        """Run the hook to its end, and say how that was."""
        began_at = time.monotonic()
        try:
            try:
                process = self._start()
            except OSError as error:
                return HookResult("hook_failed", f"cannot be started: {error.strerror}")
            if process is None:
                return HookResult("hook_interrupted", "not begun")
            threading.Thread(
                target=self._await_exit, args=[process], name="hook", daemon=True
            ).start()
            ended_by_us = self._see_through(process, began_at + self._timeout_seconds)
            with self._lock:
                self._over = True  # from here on its number may be another's
            code = process.wait()
        finally:
            with self._lock:
                self._over = True
                if self._bell is not None:
                    self._bell.close()
        return self._result(code, time.monotonic() - began_at, ended_by_us)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._cut_off:
                return None
            self._bell = Bell()
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command, and no shell
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                bufsize=0,
            )
            return self._process

    def _await_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Notice that the hook has ended, and leave its number to it: the group bears it too."""
        if hasattr(os, "waitid"):  # macOS: since Python 3.13
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        self._exited = True
        self._ring()

    def _ring(self) -> None:
        with self._lock:
            if self._bell is not None and not self._over:
                self._bell.ring()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the hook and all its children that have made no session of their own."""
        with self._lock:
            if self._process is not None and not self._over:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _see_through(self, process: subprocess.Popen[bytes], ends_at: float) -> str:
        """Feed the hook, read what it prints, end it in time; return why it was ended."""
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - as above
        assert self._bell is not None  # noqa: S101 - made before the process
        pipes = _Pipes(process.stdin.fileno(), process.stdout.fileno(), self._bell.descriptor)
        ended_by_us = ""
        killed = False
        with process.stdin, process.stdout:
            while True:
                if self._exited and (not ended_by_us or killed or not pipes.reading):
                    ended_by_us = ended_by_us or ("hook_interrupted" if self._killed else "")
                    break
                now = time.monotonic()
                if not ended_by_us and (self._cut_off or now >= ends_at):
                    ended_by_us = "hook_interrupted" if self._cut_off else "hook_timeout"
                    ends_at = now + (_CUT_OFF_SECONDS if self._cut_off else _END_SECONDS)
                    self._signal(signal.SIGTERM)
                elif ended_by_us and self._cut_off:
                    ends_at = min(ends_at, now + _CUT_OFF_SECONDS)
                if ended_by_us and not killed and now >= ends_at:
                    killed = True
                    self._signal(signal.SIGKILL)
                wait_seconds = None if killed else max(0.0, ends_at - now)
                heard = pipes.wait(wait_seconds)
                if self._bell.descriptor in heard:
                    self._bell.hush()
                if pipes.writing in heard:
                    self._told = pipes.write(self._told, process)
                if pipes.reading in heard:
                    self._output.add(pipes.read())
            if ended_by_us:
                self._signal(signal.SIGKILL)  # whoever of its children is left
            left = _MOST_LEFT_BYTES
            while left > 0 and (chunk := pipes.read()):
                self._output.add(chunk)
                left -= len(chunk)
        return ended_by_us

    def _result(self, code: int, seconds: float, ended_by_us: str) -> HookResult:
        took = f"{seconds:.3f} s"
        how = f"exit {code}" if code >= 0 else f"signal {_name(-code)}"
        shown = self._output.shown()
        if ended_by_us == "hook_timeout":
            return HookResult("hook_timeout", f"{how}, {took}", shown)
        if ended_by_us:
            return HookResult("hook_interrupted", f"{how}, {took}", shown)
        if code:
            return HookResult("hook_failed", f"{how}, {took}", shown)
        return HookResult("hook_done", f"{how}, {took}", shown)


class _Pipes:
    """The hook's ends that are ours, and the bell; an end that is closed is None."""

    def __init__(self, stdin: int, stdout: int, bell: int) -> None:
        self.writing: int | None = stdin
        self.reading: int | None = stdout
        for descriptor in (stdin, stdout):
            os.set_blocking(descriptor, False)
        self._poll = select.poll()
        self._poll.register(bell, select.POLLIN)
        self._poll.register(stdin, select.POLLOUT)
        self._poll.register(stdout, select.POLLIN)

    def wait(self, seconds: float | None) -> set[int]:
        """Return the descriptors on which something can be done."""
        milliseconds = None if seconds is None else min(seconds, _LOOK_SECONDS) * 1000 + 1
        return {descriptor for descriptor, _ in self._poll.poll(milliseconds)}

    def write(self, told: memoryview, process: subprocess.Popen[bytes]) -> memoryview:
        """Write what can be written, and close behind the last byte; return what is left."""
        assert self.writing is not None  # noqa: S101 - the caller has seen that it is open
        try:
            told = told[os.write(self.writing, told) :]
        except BlockingIOError:
            return told
        except BrokenPipeError:  # it does not care
            told = told[:0]
        if not told and process.stdin is not None:
            self._poll.unregister(self.writing)
            self.writing = None
            process.stdin.close()
        return told

    def read(self) -> bytes:
        """Return what there is to be read now; nothing at the end."""
        if self.reading is None:
            return b""
        try:
            chunk = os.read(self.reading, _CHUNK_BYTES)
        except BlockingIOError:
            return b""
        if not chunk:
            self._poll.unregister(self.reading)
            self.reading = None
        return chunk


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)
