from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from children import Child
from hostile.hostile_values import MB, assert_told, measured
from hypothesis import example, given
from hypothesis import strategies as st

from downloader.rules.ids import BadId, NoIdColumn, parse_ids, parse_pieces
from downloader.rules.json_array import MAX_LINE_CHARACTERS
from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.calling import Caller
    from harness import Program

    from downloader.rules.ids import Item

# ---------------------------------------------------------------------------------- any text

_PIECES = (
    *'[]{}",:#\n\r\t ;-0\u0661',
    *("1", "23", "1e400", "-Infinity", "NaN", "run_id", '{"run_id":', '{"run_id": 5}', "007"),
    *("9" * 5000, '"7"', '"run_id"', "\ufeff", "\0", "\ud800", "\x1a", "\u2028", "true", "null"),
    *("[" * 2000, '{"a":' * 2000, '"' * 7, "''", "=1+1", "@x", "x" * 70_000),
)
texts = st.lists(st.sampled_from(_PIECES) | st.text(max_size=4), max_size=20).map("".join)


@given(text=texts)
@example("[" * 100_000)
@example('{"run_id":' * 100_000)
@example("run_id\n" + '"' * 70_001)
def test_any_text_is_read(text: str) -> None:
    """Whatever stands in a file, it is run ids in range, and mistakes that can be shown."""
    lines = 1 + text.count("\n")
    for item in parse_ids(text.splitlines(keepends=True)):
        if isinstance(item, BadId):
            assert 1 <= item.line <= max(lines, len(text.splitlines()) + 1)
            assert item.value.isprintable()
            assert len(item.value) <= 60
            assert item.reason
        elif isinstance(item, NoIdColumn):
            assert all(name.isprintable() and len(name) <= 60 for name in item.columns)
        else:
            assert 1 <= item <= MAX_RUN_ID


_ITEMS = (
    *("[", "]", ",", "1", "23", "1.5", "1e3", "-4", "0", "true", "null", '"7"', '"a,b]"', " "),
    *('{"run_id":5}', '{"run_id":"6","x":[1,{"y":"}"}]}', "\t", "x", "NaN", "-Infinity"),
    *('"\\u00e9"', '"', "{", "}", "1.", "-", "e5"),
)


@given(
    items=st.lists(st.sampled_from(_ITEMS), max_size=15),
    cuts=st.sets(st.integers(1, 60), max_size=8),
    closed=st.booleans(),
)
def test_an_array_in_pieces(items: list[str], cuts: set[int], *, closed: bool) -> None:
    """Where a long line is cut makes no difference to what is read of an array."""
    text = "[" + "".join(items) + ("]" if closed else "")
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [(1, text[start:end]) for start, end in itertools.pairwise(places)]

    def told(found: Iterator[Item]) -> list[object]:
        return [(item.line, item.reason) if isinstance(item, BadId) else item for item in found]

    assert told(parse_pieces(pieces)) == told(parse_ids([text]))


UNCLOSED = {
    "short lines": '[{"a":[' + "1,\n" * 40_000,
    "a string over lines": '["' + "x\n" * 40_000,
    "one line": '[{"a":[' + "1," * 600_000,
    "one string": '["' + "x" * 3_000_000,
    "quotes": "run_id,a\n" + '1,"b\n' * 40_000,
    "a long quote": 'run_id,a\n1,"' + "x\n" * 100_000,
}


@pytest.mark.parametrize("text", UNCLOSED.values(), ids=UNCLOSED.keys())
def test_what_is_never_closed(text: str) -> None:
    """A bracket or quote that is not closed is found out in little time."""
    begun = time.process_time()
    pieces = (
        (number, line[start : start + MAX_LINE_CHARACTERS])
        for number, line in enumerate(text.splitlines(keepends=True), start=1)
        for start in range(0, len(line), MAX_LINE_CHARACTERS)
    )
    assert any(isinstance(item, BadId) for item in parse_pieces(pieces))
    assert time.process_time() - begun < 10


def test_lines_of_mistakes_in_arrays() -> None:
    """A mistake behind an item of many lines is shown at its own line."""
    text = '[\n{"a": [\n1,\n2,\n3\n],\n"run_id": 5},\n6,\nx]'
    found = list(parse_ids(text.splitlines(keepends=True)))
    assert found[:2] == [5, 6]
    assert isinstance(found[2], BadId)
    assert found[2].line == 9


# ----------------------------------------------------------------------------- any file, by CLI

FILES: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(5000),
    "random bytes": bytes(range(256)) * 40,
    "an executable": b"\x7fELF\x02\x01\x01" + bytes(500),
    "UTF-16 with no mark and no end of a line": "12".encode("utf-16-le"),
    "NUL between": b"1\x002\x003\x00",
    "an object of objects": b'{"run_ids": {"run_ids": {"run_ids": {"run_ids": {"run_ids": [1]}}}}}',
    "not UTF-8": b"1\n\xff\xfe\n",
    "digits of another script": "١٢\n".encode(),
    "huge": b"9" * 100_000 + b"\n",
    "huge in JSON": b"[" + b"9" * 100_000 + b"]",
    "infinite": b"[1e400, -1e400, NaN, Infinity]",
    "nested": b"[" * 100_000,
    "nested objects": b'{"run_id":' * 100_000,
    "a quote": b'run_id,name\n1,"a\n2,b\n',
    "too few columns": b"a,b,run_id\n1\n2\n",
    "a quote of 300 kB": b'run_id,a\n1,"' + b"x" * 300_000 + b'"\n',
    "a line of 3 MB": b"1\n" + b"2" * 3_000_000 + b"\n3\n",
    "a comment of 3 MB": b"1\n#" + b"x" * 3_000_000 + b"\n",
    "spaces of 3 MB": b" " * 3_000_000 + b"\n1\n",
    "HTML": b"<html><body>1</body></html>",
    "secrets": b"CAMB_API_KEY=abcdef0123456789\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_files_that_are_no_lists(call: Caller, name: str, way: str) -> None:
    """A file of anything else is refused as a whole, in words that say where and why."""
    path = call.folder / "ids"
    path.write_bytes(FILES[name])
    answer = (
        call("submit", "--file", path)
        if way == "file"
        else call("submit", "--file", "-", stdin=FILES[name])
    )
    assert_told(answer, 2)
    assert len(answer.err) < 3000
    assert answer.err.replace("\n", "").isprintable()
    assert call("status", "--json").json["runs"]["pending"] == 0


def test_an_array_in_one_long_line(call: Caller) -> None:
    """A JSON array may be one line of any length; every id of it is tracked."""
    count = 130_000
    path = call.folder / "ids"
    path.write_text(json.dumps(list(range(10_000_001, 10_000_001 + count))))
    assert path.stat().st_size > MAX_LINE_CHARACTERS
    assert call("submit", "--file", path).out == f"submitted {count} new, 0 already tracked\n"


def test_what_is_no_file(call: Caller) -> None:
    """A folder, a loop of links and a name that no file can have are told as such."""
    (call.folder / "loop").symlink_to("loop")
    for named in (call.folder, call.folder / "loop", "x" * 5000, call.folder / "none"):
        answer = call("submit", "--file", named)
        assert_told(answer, 2)
        assert "Nothing was recorded" in answer.err


def test_a_pipe_with_a_name(call: Caller) -> None:
    """A named pipe is read as a file is, to its end."""
    path = call.folder / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("1\n2\n",))
    writer.start()
    answer = call("submit", "--file", path)
    writer.join()
    assert answer.out == "submitted 2 new, 0 already tracked\n"


# -------------------------------------------------------------------------------------- memory

WRITERS = {
    "zeros without end": "while True: out.write(bytes(65536))",
    "an open string without end": "out.write(b'[\"')\nwhile True: out.write(b'x' * 65536)",
    "an open item without end": "out.write(b'[')\nwhile True: out.write(b'{\"a\":[' * 9999)",
    "CSV in an open quote": "out.write(b'run_id,a\\n1,\"')\nwhile True: out.write(b'x\\n' * 9999)",
    "random bytes without end": "import os\nwhile True: out.write(os.urandom(65536))",
    "200 MB in a line": "[out.write(b'1,2,3,' * 10_000) for _ in range(3500)]",
}


@pytest.mark.parametrize("name", WRITERS)
def test_memory_of_endless_input(program: Program, name: str) -> None:
    """Input without an end, or without the end of a line, is refused in bounded memory."""
    assert program("db", "upgrade").returncode == 0
    source = f"import sys\nout = sys.stdout.buffer\n{WRITERS[name]}\n"
    with Child(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writer:
        code, said, peak = measured(
            "submit", "--file", "-", env=program.environment(), stdin=writer.stdout
        )
        assert writer.stdout is not None
        writer.stdout.close()
        writer.kill()
    assert code == 2
    assert "nothing was recorded" in said.lower()
    assert peak < 150 * MB
    assert program.query("SELECT count(*) FROM runs") == [(0,)]


def test_memory_of_a_file_without_end(program: Program) -> None:
    """A device that never ends is no file of run ids."""
    assert program("db", "upgrade").returncode == 0
    code, said, peak = measured("submit", "--file", "/dev/zero", env=program.environment())
    assert code == 2
    assert "nothing was recorded" in said
    assert peak < 150 * MB


def test_memory_of_an_array_in_one_line(program: Program, tmp_path: Path) -> None:
    """An array of 100 MB in one line is read without being held in memory."""
    path = tmp_path / "ids.json"
    with path.open("w") as file:
        file.write("[1,")
        for _ in range(100):
            file.write(" " * MB)
        file.write("2]")
    code, said, peak = measured("submit", "--file", str(path), env=program.environment())
    assert (code, said) == (0, "submitted 2 new, 0 already tracked\n")
    assert peak < 150 * MB
