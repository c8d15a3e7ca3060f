from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import pytest

if TYPE_CHECKING:
    from harness import Program
    from inspecting.looking import Answer, Site

MARKS: Final = ("Signature", "5ec2e7", "storage.example")
"""What every URL of the cases has in it; the hexadecimal ones are searched for too."""


def assert_nothing_secret(answer: Answer, secrets: list[str]) -> None:
    """Assert that no URL is in an answer, nor a part of one, nor its bytes in hexadecimal."""
    text = answer.text
    found = [one for one in (*secrets, *MARKS) if one in text]
    found += [mark for mark in MARKS if mark.encode().hex() in text.lower()]
    assert found == []


# Whatever could name the column: it reads as NULL there, or the statement is refused.
READING: Final = [
    "SELECT url FROM runs",
    "SELECT * FROM runs",
    'SELECT "URL" FROM main.runs AS r',
    "SELECT [url], `url`, r.Url FROM runs r",
    "SELECT max(url), min(url), group_concat(url) FROM runs",
    "SELECT json_group_array(url) FROM runs",
    "SELECT hex(url), quote(url), substr(url, 1, 9), length(url), typeof(url) FROM runs",
    "SELECT run_id FROM runs WHERE url LIKE 'https%'",
    "SELECT run_id FROM runs WHERE url > 'a' OR url IS NOT NULL",
    "SELECT count(*) FILTER (WHERE url IS NOT NULL) FROM runs",
    "SELECT lag(url) OVER (ORDER BY run_id) FROM runs",
    "SELECT (SELECT url FROM runs WHERE state = 'ready')",
    "SELECT * FROM (SELECT url AS innocent FROM runs)",
    "WITH r AS MATERIALIZED (SELECT * FROM runs) SELECT * FROM r",
    "SELECT a.url FROM runs a JOIN run_events b USING (run_type, run_id)",
    "SELECT url FROM runs UNION SELECT detail FROM run_events WHERE 0",
    "SELECT url FROM runs GROUP BY url ORDER BY url",
    "SELECT value FROM runs, json_each(json_array(url))",
    "SELECT iif(url GLOB 'h*', 1, 0) FROM runs",
    # SQLite's authorizer is not asked for these.
    "SELECT url FROM (SELECT NULL AS url) AS a FULL JOIN runs USING (url)",
    "SELECT * FROM (SELECT NULL AS url) AS a FULL JOIN runs USING (url)",
    "SELECT * FROM runs NATURAL FULL JOIN runs AS b",
    "SELECT hex(url) FROM runs AS a NATURAL FULL JOIN runs AS b",
    "SELECT url FROM (SELECT NULL AS url) AS a RIGHT JOIN runs USING (url)",
    "SELECT count(*) FROM (SELECT :guess AS url) JOIN runs USING (url)",
    "WITH r(url) AS (SELECT NULL) SELECT * FROM r NATURAL FULL JOIN runs",
    # What is below the tables.
    "SELECT data FROM sqlite_dbpage",
    "SELECT * FROM sqlite_stmt",
    "SELECT * FROM dbstat",
]


@pytest.mark.parametrize("sql", READING)
def test_no_statement_reads_a_url(site: Site, secrets: list[str], sql: str) -> None:
    """Whatever is asked by SQL, the URL is NULL or the question is refused."""
    answer = site.select(sql, guess=secrets[0])
    assert answer.status in (200, 400)
    # The question is repeated in its answer, with the guess.
    told = replace(answer, content=answer.content.replace(secrets[0].encode(), b""))
    assert_nothing_secret(told, secrets)
    if answer.status == 400:
        assert re.search(
            r"not authorized|prohibited|no such (table|function)", answer.json["error"]
        )


def test_what_the_page_says_of_the_column(site: Site) -> None:
    """The column is NULL wherever it is named, also in conditions; a join by it is refused."""
    [[runs]] = site.rows("SELECT count(*) FROM runs")
    for condition, found in (
        ("url IS NOT NULL", 0),
        ("url LIKE '%'", 0),
        ("url IN (SELECT url FROM runs)", 0),
        ("url IS NULL", runs),
    ):
        assert site.rows(f"SELECT count(*), count(url) FROM runs WHERE {condition}") == [[found, 0]]  # noqa: S608 - our own
    assert site.rows("SELECT url, count(*) FROM runs GROUP BY url") == [[None, runs]]
    assert site.rows("SELECT count(*) FROM runs AS a JOIN runs AS b ON a.url = b.url") == [[0]]
    for join in ("JOIN runs AS b USING (url)", "NATURAL JOIN runs AS b"):
        answer = site.select(f"SELECT count(*) FROM runs AS a {join}")  # noqa: S608 - our own
        assert answer.json["error"] == "not authorized: the column url is a secret"


def test_a_guess_is_not_confirmed(site: Site, secrets: list[str]) -> None:
    """Who guesses a URL is not told whether it is one: neither by a join nor by a filter."""
    sql = "SELECT count(*) FROM (SELECT :guess AS url) JOIN runs USING (url)"
    told = [site.select(sql, guess=guess).json["error"] for guess in (secrets[0], "https://no/")]
    assert told[0] == told[1] == "not authorized: the column url is a secret"
    for operator in ("exact", "contains", "startswith", "gt", "like", "glob", "notnull", "in"):
        value = {"notnull": "1", "like": "%e%", "glob": "*e*", "gt": "a"}.get(operator, secrets[0])
        assert site.table("runs", **{f"url__{operator}": value}) == []
    everything = len(site.table("runs"))
    assert len(site.table("runs", url__isnull=1)) == everything
    assert site.table("runs", _where="url LIKE '%e%'") == []


def test_the_column_is_null_everywhere(site: Site, secrets: list[str]) -> None:
    """Table, row, CSV, sorting and facets have the column, and nothing in it."""
    assert {row["url"] for row in site.table("runs")} == {None}
    by_url = [row["run_id"] for row in site.table("runs", _sort="url")]
    backwards = [row["run_id"] for row in site.table("runs", _sort_desc="url")]
    assert by_url == backwards, "the order tells nothing"
    [(run_type, run_id)] = site.program.query(
        "SELECT run_type, run_id FROM runs WHERE url IS NOT NULL LIMIT 1"
    )
    row = site.ask(f"/downloader/runs/{run_type},{run_id}.json?_shape=array").json
    assert [one["url"] for one in row] == [None]
    faceted = site.ask("/downloader/runs.json?_facet=url&_facet=state").json
    assert faceted["facet_results"]["url"]["results"] == []
    assert faceted["facet_results"]["state"]["results"] != []
    for path in (
        "/downloader/runs.csv?_size=max",
        "/downloader/runs.csv?_stream=1",
        "/downloader/runs?_size=max",
        f"/downloader/runs/{run_type},{run_id}",
        "/downloader/runs?_facet=url",
        "/downloader/runs?_facet_array=url&_facet_date=url",
    ):
        answer = site.ask(path)
        assert answer.status == 200
        assert_nothing_secret(answer, secrets)


def test_the_database_itself_is_not_handed_out(site: Site) -> None:
    """The file cannot be downloaded, and Datasette's own database is not shown."""
    assert site.ask("/downloader.db").status == 403
    assert site.ask("/_internal").status == 403
    assert site.ask("/_internal.json?sql=select+1").status == 403
    assert site.ask("/_memory").status == 404


_LINK: Final = re.compile(r'\b(?:href|src|action)="([^"]*)"')
_FETCHED: Final = re.compile(
    r'<(?:script|link rel="(?!alternate)|img|audio|iframe|source)\b[^>]*?(?:href|src)="([^"]*)"'
)


def test_wherever_the_links_lead(site: Site, secrets: list[str]) -> None:
    """Every page that links lead to can be had, shows no URL, and fetches from nowhere else."""
    waiting, seen = ["/", "/-/metadata", "/-/databases", "/-/settings", "/-/plugins"], set[str]()
    kinds = set[str]()
    while waiting and len(seen) < 300:
        path = waiting.pop(0)
        # Pages that differ in their question alone are one: there is no end to them.
        kind = re.sub(r"[0-9]+", "1", path.partition("?")[0])
        names = re.findall(r"[?&]([a-z_]+)=", html.unescape(path))
        if path in seen or f"{kind} {names}" in kinds:
            continue
        seen.add(path)
        kinds.add(f"{kind} {names}")
        answer = site.ask(path)
        if answer.status == 404 and path.startswith("/-/audio/"):
            continue  # the cases have no files
        assert answer.status in (200, 302), (path, answer.text[:300])
        if answer.headers.get("content-type", "").startswith(("audio/", "image/")):
            continue
        assert_nothing_secret(answer, secrets)
        if answer.headers["content-type"].startswith("text/html"):
            fetched = {html.unescape(one) for one in _FETCHED.findall(answer.text)}
            assert [one for one in fetched if not one.startswith("/") or "//" in one] == []
            for link in _LINK.findall(answer.text):
                target = urljoin(f"{site.url.rstrip('/')}{path}", html.unescape(link)).partition(
                    "#"
                )[0]
                if target.startswith(site.url) and "logout" not in target:
                    parts = urlsplit(target)
                    waiting.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    assert len(seen) > 80
    assert {"/downloader/runs", "/downloader/ask-stuck", "/downloader/eta"} <= seen
    assert any(path.startswith("/downloader/runs/") for path in seen)


def test_a_question_that_goes_wrong_is_told_on_the_page(site: Site, shown: Program) -> None:
    """What is wrong with a statement, a path or a value is said on the page, in a sentence."""
    assert site.program is shown
    for path, status, told in (
        ("/downloader?sql=select+xx", 400, "no such column"),
        ("/downloader/runs?_sort=nothing", 400, "nothing"),
        ("/downloader/nothing", 404, "not found"),
        ("/nothing", 404, "not found"),
        ("/downloader/runs/text-to-sound,999999", 404, "not found"),
        ("/downloader/runs?_where=xx", 400, "no such column"),
    ):
        answer = site.ask(path)
        assert answer.status == status, path
        assert told in answer.text, path
        assert "Traceback" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    # The fixture asserts that nothing of this was printed.
