"""`downloader verify`: compare the record with the files, and put right what can be."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, Self

import click

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.cli import streams
from downloader.cli.hints import typed
from downloader.cli.options import Command, database_option, json_option, output_option
from downloader.cli.quantities import Whole
from downloader.observe.painted import Painted, write_above
from downloader.observe.progress import meter
from downloader.settings import check_output

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from downloader.verification.findings import Finding, Tally
    from downloader.verification.verification import Verification

_REDRAW_SECONDS: Final = 0.1


@click.command(
    cls=Command,
    short_help="Compare the record with the files.",
    epilog="Example: downloader verify --repair",
)
@click.option("--quick", is_flag=True, help="Only existence and size: no file is read.")
@click.option(
    "--repair",
    is_flag=True,
    help="Put runs with damaged or missing files back to pending, record files whose commit was "
    "lost, remove stale parts.",
)
@click.option(
    "--all-missing",
    is_flag=True,
    help="Go on even where a whole folder of saved files is gone, which otherwise is taken for a "
    "disk that is not mounted.",
)
@click.option(
    "--threads",
    type=Whole(1, 64),
    default=4,
    show_default=True,
    help="How many files are read at a time.",
)
@output_option
@database_option
@json_option
def verify(
    *,
    quick: bool,
    repair: bool,
    all_missing: bool,
    threads: int,
    output: Path | None,
    database: str | None,
    as_json: bool,
) -> int:
    """Compare every saved file with what was recorded: is it there, with its size and SHA-256.

    Also found are files in the output folder that are named as saved files are but which no
    done run has, and parts of transfers that are over. It may run beside `downloader run`.

    --repair deletes no file but such parts. A damaged file is kept, renamed to
    NAME.damaged-1, and its run is fetched anew by the next `downloader run`.

    Exit codes: 0 all is well, 1 something was wrong, repaired or not (verify again to see
    that all is well now), 2 usage, or a folder of saved files is gone: nothing was changed.
    """
    from downloader.store.migrate import open_database  # noqa: PLC0415 - start-up time
    from downloader.verification.verification import Options, Verification  # noqa: PLC0415 - as above

    with ExitStack() as stack:
        opened = stack.enter_context(closing(open_database(database, existing=True)))
        folder = output if output is not None else opened.path.parent / "audio"
        check_output(folder.absolute())
        options = Options(quick=quick, repair=repair, all_missing=all_missing, threads=threads)
        bar = stack.enter_context(_Bar(quick=quick))
        verification = Verification(opened, folder, options, bar.show)
        bar.begin(verification)
        lines = _Lines(bar, needed=repair)
        tell = _as_json if as_json else _as_text
        with closing(verification.findings()) as findings:
            for finding in findings:
                lines.write(tell(finding))
                if lines.unread:
                    return 1
        tally = verification.tally
        bar.close()
        for line in (
            [_json_summary(tally)]
            if as_json
            else _summary(tally, opened.path, quick=quick, repair=repair)
        ):
            lines.write(line)
    return 1 if tally.found else 0


def _as_json(finding: Finding) -> str:
    key = finding.key
    return json.dumps(
        {
            "finding": finding.kind.value,
            "run_type": None if key is None else key.run_type,
            "run_id": None if key is None else key.run_id,
            "path": finding.path,
            "detail": finding.detail,
            "repair": finding.repair,
        }
    )


def _json_summary(tally: Tally) -> str:
    from downloader.verification.findings import Kind  # noqa: PLC0415 - start-up time

    return json.dumps(
        {
            "checked": tally.checked,
            "read_bytes": tally.read_bytes,
            "found": {kind.value: tally.found[kind] for kind in Kind},
            "repaired": tally.repaired,
        }
    )


def _as_text(finding: Finding) -> str:
    run = ""
    if finding.key is not None:
        of_type = finding.key.run_type
        run = f" {finding.key.run_id}" + ("" if of_type == DEFAULT_RUN_TYPE else f" ({of_type})")
    done = "" if finding.repair is None else f"; {finding.repair}"
    return f"{finding.kind.value.replace('_', ' ')}{run}: {typed(finding.detail)}{done}"


def _summary(tally: Tally, database: Path, *, quick: bool, repair: bool) -> list[str]:
    """Return the last lines: what was looked at, what was found, and what can be done now."""
    if not tally.checked and not tally.found:
        return [f"nothing to check: no saved run is recorded in {database}"]
    files = f"{tally.checked} saved {'file' if tally.checked == 1 else 'files'}"
    how = "existence and size only" if quick else f"{tally.read_bytes / 1e6:,.1f} MB read"
    if not tally.found:
        return [f"checked {files} ({how}): all is well"]
    found = ", ".join(
        f"{number} {kind.value.replace('_', ' ')}{'s' if kind in _NOUNS and number > 1 else ''}"
        for kind, number in sorted(tally.found.items())
    )
    lines = [f"checked {files} ({how}): {found}; {tally.repaired} repaired"]
    if tally.put_back:
        lines.append(typed("`downloader run --drain` fetches what was put back"))
    if not repair and set(tally.found) & _REPAIRABLE:
        lines.append(typed("`downloader verify --repair` puts right what can be put right"))
    return lines


_NOUNS: Final = frozenset({"orphan", "stale_part"})
_REPAIRABLE: Final = frozenset({"damaged", "missing", "unrecorded", "stale_part"})


class _Lines:
    """Writes to standard output, around a bar if there is one.

    A reader that leaves (`| head`) ends a verification, but no repairs: these are `needed`.
    """

    def __init__(self, bar: _Bar, *, needed: bool) -> None:
        self._bar = bar
        self._needed = needed

    @property
    def unread(self) -> bool:
        """Whether nobody reads any more, so that there is no use in going on."""
        output = streams.output()
        return output is not None and output.is_unread and not self._needed

    def write(self, line: str) -> None:
        """Write one line."""
        self._bar.write(line)


class _Bar:
    """A bar on a terminal, nothing elsewhere: files with `quick`, else the bytes read."""

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick
        self._painted: Painted | None = None
        self._verification: Verification | None = None
        self._began_at = self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, verification: Verification) -> None:
        """Draw the bar, where standard error is a terminal."""
        if sys.stderr.isatty():
            self._painted, self._verification = Painted(sys.stderr), verification
            self._draw()

    def show(self) -> None:
        """Redraw the bar, if it is time to."""
        if time.monotonic() - self._shown_at >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        if self._painted is None or self._verification is None:
            return
        tally, of = self._verification.tally, self._verification
        self._shown_at = time.monotonic()
        line = meter(
            tally.checked if self._quick else tally.read_bytes,
            of.files if self._quick else of.bytes,
            self._shown_at - self._began_at,
            prefix="verify",
            unit="file" if self._quick else "B",
            unit_scale=not self._quick,
            unit_divisor=1000,
            postfix=f"{sum(tally.found.values())} found",
        )
        self._painted.show([line])

    def write(self, line: str) -> None:
        """Write a line to standard output without spoiling the bar."""
        write_above(line, sys.stdout)

    def close(self) -> None:
        """Draw the bar a last time, and leave it."""
        if self._painted is not None:
            self._draw()
            self._painted.leave()
            self._painted = None
