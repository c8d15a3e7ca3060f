from __future__ import annotations

import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest
from harness import wait_until
from inspecting.looking import Site, address, inspected
from sql import page as sql_page
from store.driving import Driver

from downloader.inspecting.described import examples, query_name
from downloader.rules.steps import Published
from downloader.store.contract import plain, read_page
from downloader.store.migrate import open_database
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from harness import Program

# What `main` would do, with a library that is not there; and then what it has imported.
CALL: Final = """
import sys
{before}
from downloader.cli.main import main
try:
    main()
finally:
    print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"datasette", "uvicorn"}}))
"""


def call(program: Program, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the program in an interpreter that has been prepared."""
    return subprocess.run(
        [sys.executable, "-c", CALL.format(before=before), *arguments],
        env=program.environment(),
        cwd=program.folder,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(program: Program, *arguments: str) -> str:
    """Assert that nothing is served, and that one line says why; return the line."""
    done = program("inspect", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("missing", ["datasette", "starlette", "uvicorn", "markupsafe"])
def test_without_the_extra(program: Program, missing: str) -> None:
    """Where a library is missing, the error names it and the extra that brings it."""
    open_database(program.database).close()
    done = call(program, f"sys.modules[{missing!r}] = None", "inspect", "--port", "0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"needs Datasette, and {missing}" in done.stderr
    assert "pip install '.[inspect]'" in done.stderr


def test_other_commands_load_none_of_it(program: Program) -> None:
    """No other command imports Datasette, nor does the help of this one."""
    open_database(program.database).close()
    for arguments in (("status",), ("inspect", "--help")):
        done = call(program, "", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("\n\n"), arguments


def test_a_database_that_is_not_there(program: Program) -> None:
    """A mistyped database is told of, and not made."""
    said = assert_refused(program, "--database", str(program.folder / "typo" / "runs.sqlite3"))
    assert "There is no database at" in said
    assert "typo" in said
    assert not (program.folder / "typo").exists()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "`downloader db upgrade`"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer version of this program"),
        ("DROP TABLE alembic_version", "belongs to another program"),
    ],
)
def test_another_schema(program: Program, sql: str, told: str) -> None:
    """A database of another schema, or of another program, is told of and left as it is."""
    open_database(program.database).close()
    with closing(sqlite3.connect(program.database)) as raw:
        raw.execute(sql)
        raw.commit()
    before = program.database.read_bytes()
    assert told in assert_refused(program)
    assert program.database.read_bytes() == before


def test_something_else_than_a_database(program: Program) -> None:
    """An empty file has to be made a database first, a text is none, and neither is a folder."""
    program.database.touch()
    said = assert_refused(program)
    assert "is empty" in said
    assert SCHEMA_REVISION in said
    program.database.write_text("not a database, " * 100)
    assert "not a database" in assert_refused(program)
    assert "Is a directory" in assert_refused(program, "--database", str(program.folder))


def test_a_port_that_is_taken(program: Program) -> None:
    """A port that somebody else has is named."""
    open_database(program.database).close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = assert_refused(program, "--port", str(port))
    assert f"port {port} of 127.0.0.1: Address already in use" in said
    assert "--port" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_peace(program: Program, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it with exit code 0, while a browser holds its connection open."""
    open_database(program.database).close()
    with program.start("inspect", "--port", "0") as process:
        url = address(process)
        port = int(url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_while_somebody_listens(program: Program) -> None:
    """A file that is being listened to does not hold up the end, nor is its cut an error."""
    program.output.mkdir()
    path = program.output / "1.wav"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    with closing(open_database(program.database)) as database:
        driver = Driver(database)
        driver.ready(1)
        [claim] = driver.claim_ready().claimed
        step = Published(str(path), 200_000_000, f"{1:064x}", "wav", None)
        assert driver.end([claim], step) == [True]
    with inspected(program) as site:
        port = int(site.url.rstrip("/").rpartition(":")[2])
        listening = socket.create_connection(("127.0.0.1", port))
        listening.sendall(b"GET /-/audio/text-to-sound/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert listening.recv(15) == b"HTTP/1.1 200 OK"
        site.process.send_signal(signal.SIGTERM)
        site.process.wait(timeout=60)
    listening.close()


def test_plugins_of_others_have_no_part(program: Program) -> None:
    """A plugin for Datasette that is installed beside it answers nothing here."""
    open_database(program.database).close()
    installed = program.folder / "installed"
    (installed / "other-1.0.dist-info").mkdir(parents=True)
    (installed / "other-1.0.dist-info" / "METADATA").write_text("Name: other\nVersion: 1.0\n")
    points = "[datasette]\nother = other_plugin\n"
    (installed / "other-1.0.dist-info" / "entry_points.txt").write_text(points)
    (installed / "other_plugin.py").write_text(
        "from datasette import Response, hookimpl\n"
        "@hookimpl\n"
        "def register_routes():\n"
        "    return [(r'^/other$', lambda: Response.text('other'))]\n"
    )
    program.env["PYTHONPATH"] = str(installed)
    with inspected(program) as site:
        assert site.ask("/other").status == 404
        assert "other" not in site.ask("/-/plugins.json").text


def test_a_name_of_its_own(program: Program) -> None:
    """A path with characters that mean something in a URI is opened as it is."""
    program.env["DOWNLOADER_DATABASE"] = str(program.folder / "50% off?#x" / "ru ns.db.sqlite3")
    assert program("submit", "7").returncode == 0
    with inspected(program) as site:
        assert [row["run_id"] for row in site.table("runs")] == [7]


def test_it_opens_the_browser(program: Program) -> None:
    """`--open` has the browser open the address; without it none is started."""
    open_database(program.database).close()
    opened = program.folder / "opened"
    script = program.folder / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    script.chmod(0o755)
    program.env["BROWSER"] = str(script)
    with inspected(program):
        pass
    assert not opened.exists()
    with inspected(program, "--open") as site:
        wait_until(lambda: opened.exists() and opened.read_text() != "", site.process)
        assert opened.read_text() == f"{site.url}\n"


def test_the_page_describes_everything(site: Site) -> None:
    """Each table, view, column and question of docs/sql.md is described as it is there."""
    page = read_page()
    assert page.text == sql_page.TEXT
    told = site.ask("/-/metadata.json").json["databases"]["downloader"]
    runs = {column.name: column for column in page.relations("Tables")["runs"]}
    for kind in ("Tables", "Views"):
        for name, columns in page.relations(kind).items():
            assert told["tables"][name]["description"] == plain(page.about(name))
            described = told["tables"][name]["columns"]
            assert list(described) == [column.name for column in columns]
            for column in columns:
                same = runs[column.name] if column.holds == "as in `runs`" else column
                assert described[column.name].startswith(plain(same.holds))
                assert "as in" not in described[column.name]
    assert list(told["queries"]) == [query_name(query.name) for query in page.queries()]
    for query in page.queries():
        found = told["queries"][query_name(query.name)]
        filled = query.sql
        for name, value in examples(query).items():
            filled = re.sub(rf"('?){value}\1 /\* :{name} \*/", f":{name}", filled)
        assert (found["sql"], found["title"]) == (filled, query.question)
        assert found["params"] == re.findall(r"(?<!\d):([a-z]\w*)", filled)
        assert "/*" not in filled
    everything = site.ask("/-/metadata.json").text
    assert [mark for mark in ("](", "`", "**") if mark in everything] == []


def test_every_question_is_answered(site: Site) -> None:
    """Each question's page has the rows that its query gives, read beside it."""
    for query in read_page().queries():
        asked = urlencode({"_shape": "arrays", **examples(query)})
        answer = site.ask(f"/downloader/{query_name(query.name)}.json?{asked}")
        assert answer.status == 200, query.name
        if "'now'" not in query.sql and query.name not in ("eta", "stuck"):
            expected = [list(row) for row in site.program.query(query.sql)]
            assert answer.json["rows"] == expected, query.name
