from __future__ import annotations

import csv
import io
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.id_cells import BINARY, GROUPED, NO_NUMBER, ROUNDED, SHORTENED, parse_cell
from downloader.rules.ids import BadId, Item, NoIdColumn, parse_id, parse_ids
from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator


def ids(text: str) -> list[Item]:
    """Read a file's text."""
    return list(parse_ids(text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        (" 12\r\n", 12),
        (str(MAX_RUN_ID), MAX_RUN_ID),
        (str(MAX_RUN_ID + 1), f"is too large: the largest run id is {MAX_RUN_ID}"),
        ("9" * 5000, f"is too large: the largest run id is {MAX_RUN_ID}"),
        ("0", "is zero: run ids start at 1"),
        ("000", "is zero: run ids start at 1"),
        ("007", "has leading zeros"),
        ("-1", "is negative: run ids start at 1"),
        ("", "is empty"),
        *(
            (text, "is not a run id: a run id is a whole number")
            for text in (
                "1.5",
                "1e3",
                "+5",
                "1_000",
                "1,000",
                "abc",
                "0x1F",
                "\N{FULLWIDTH DIGIT FIVE}",
                "1 2",
                "true",
                "null",
                "-",
                "٣",
                "NaN",
                "--1",
            )
        ),
    ],
)
def test_one_id(text: str, expected: int | str) -> None:
    """An id is plain digits from 1 to 2**63 - 1; anything else gets a reason."""
    assert parse_id(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1\n22\n333\n", id="lines"),
        pytest.param("\ufeff1\r\n\r\n  22  \r\n333", id="bom-and-crlf"),
        pytest.param("# ids\n\n1 # first\n22#\n  # more\n333\n#", id="comments"),
        pytest.param("[1, 22,333]", id="array"),
        pytest.param('["1","22","333"]\n', id="array-of-strings"),
        pytest.param(
            "\n# ids\n\ufeff[\n1,\n22\n,333\n]\n\n".replace("\ufeff", ""), id="array-lines"
        ),
        pytest.param('[{"run_id":1},{"x":[{}],"run_id":"22"},333]', id="array-of-objects"),
        pytest.param('[\n {\n  "run_id": 1\n },\n {"run_id": 22}, 333]', id="pretty-array"),
        pytest.param('{"run_id":1}\n\n{"x":"#","run_id":"22"}\n333 # c', id="json-lines"),
        pytest.param("run_id\n1\n22 # c\n# c\n\n333\n", id="csv-one-column"),
        pytest.param('a,"RUN_ID" ,b\r\nx,1,y\r\n"x,\n#x","22",\r\n,333\r\n', id="csv"),
        pytest.param("# c\na;run_id\n,;1\n;22\n;333", id="csv-semicolon"),
        pytest.param("run_id\tname\n1\ta,b\n22\t\n333\t'", id="csv-tab"),
    ],
)
def test_formats(text: str) -> None:
    """Every usual format of a list of ids is read."""
    assert ids(text) == [1, 22, 333]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1;22;333", id="one-line-of-semicolons"),
        pytest.param("1\t22\t333\r\n", id="a-row-of-excel"),
        pytest.param("1,22,333", id="one-line-of-commas"),
        pytest.param("1 22 333\n\n# all\n", id="echo"),
        pytest.param("1, 22,\n333", id="pasted-from-a-program"),
        pytest.param("1,\n22,\n333,\n", id="trailing-commas"),
        pytest.param("1;\n22;\n333;\n", id="trailing-semicolons"),
        pytest.param("1.0\n22.0\n333.0\n", id="floats"),
        pytest.param(",run_id\n0,1.0\n1,22.0\n2,333.0\n", id="pandas"),
        pytest.param("run_id;x\n1,0;2,5\n22,00;3\n333;\n", id="pandas-decimal-comma"),
        pytest.param("1.0e+00\n2.2e+01\n3.33E+02\n", id="exact-scientific"),
        pytest.param("1.000000000000000000e+00\n2.200000000000000000e+01\n333", id="numpy"),
        pytest.param('"1"\n"22"\n"333"', id="quoted"),
        pytest.param("'1'\n'22\n\u201c333\u201d", id="other-quotes"),
        pytest.param('run_id\n"=""1"""\n="22"\n333', id="excel-text-formula"),
        pytest.param("\xa01\xa0\n\u200b22\u200e\n\u202f333\u3000", id="odd-blanks"),
        pytest.param("1\n\ufeff22\n333", id="joined-files-with-marks"),
        pytest.param("sep=,\nrun_id,name\n1,a;b\n22,c\n333,", id="sep-comma"),
        pytest.param("sep=\t\nname\tid\na\t1\n\t22\n\t333", id="sep-tab"),
        pytest.param("SEP=|\nrun_id|x\n1|a\n22|b\n333|c", id="sep-bar"),
        pytest.param("run_id,a,\n1,x,\n22,y,,\n333,,", id="csv-trailing-commas"),
        pytest.param("Run IDs\n1\n22\n333", id="one-column-of-another-name"),
        pytest.param(
            "| id | name |\n|---:|:-----|\n| 1 | a |\n| 22 | b c |\n| 333 |  |", id="markdown"
        ),
        pytest.param(
            "+--------+------+\n| run_id | x |\n+--------+\n| 1 | a |\n| 22 | |\n| 333 | c |\n"
            "+--------+------+\n3 rows in set (0.00 sec)\n",
            id="mysql",
        ),
        pytest.param(
            "┌─┐\n│ run_id │ a │\n├─┤\n│ 1 │ x │\n│ 22 │ y z │\n│ 333 │ │\n└─┘\n",
            id="sqlite-box",
        ),
        pytest.param("name|run_id\na b|1\nc|22\n|333\n", id="sqlite-list"),
        pytest.param("run_id  state\n------  -----\n1       done\n22  failed\n333 x", id="columns"),
        pytest.param(
            '{\n "run_id": 1,\n "a": {\n }\n}\n{"run_id": 22}\n  {\n  "run_id": "333"\n  }', id="jq"
        ),
        pytest.param("[1,22]\n[333]\n", id="arrays-one-behind-another"),
        pytest.param("[1, 22, 333,]", id="array-trailing-comma"),
        pytest.param('{"run_ids": [1, "22", 333]}', id="a-request"),
        pytest.param('{"1": {"output_url": "u"}, "22": null, "333": {}}', id="an-answer"),
        pytest.param(
            '{"data": {"results": [{"run_id": 1}, {"run_id": 22}, {"runId": 333}]}}', id="results"
        ),
        pytest.param('{"status": "SUCCESS", "run_id": 1}\n{"run_ids": [22, 333]}', id="tasks"),
    ],
)
def test_what_programs_write(text: str) -> None:
    """What spreadsheets, shells, databases, notebooks and the service write is read."""
    assert ids(text) == [1, 22, 333]
    assert ids(text.replace("\n", "\r\n")) == [1, 22, 333]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("101.0", 101),
        ("101.0000", 101),
        ("12345.000", 12345),
        ("1.01E+02", 101),
        ("1.010000000000000000e+02", 101),
        (f"{2**53 - 1}.0", 2**53 - 1),
        (f"{2**53}.0", ROUNDED),
        ("101.5", NO_NUMBER),
        ("1.015e2", NO_NUMBER),
        ("1.23457E+11", SHORTENED),
        ("1E+05", SHORTENED),
        ("1e3", SHORTENED),
        ("1,000", GROUPED),
        ("1.000", GROUPED),
        ("12.345.678", GROUPED),
        ("12\u202f345", GROUPED),
        ("12\u2019345", GROUPED),
        ("1_000", GROUPED),
        ("0.0", "is zero: run ids start at 1"),
        ("-5.0", "is negative: run ids start at 1"),
        ("+5", NO_NUMBER),
        ("007", "has leading zeros"),
        ("007.0", "has leading zeros"),
        ("1 2", NO_NUMBER),
        ('""', "is empty"),
        ("=1+1", NO_NUMBER),
        ("1\0002", BINARY),
    ],
)
def test_one_cell(text: str, expected: int | str) -> None:
    """What is surely a whole number is an id; what could be another one, or several, is not."""
    assert parse_cell(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1 2\n3 4\n", 1),  # perhaps a table: ids, and something else
        ("1;2\n3;4\n", 1),
        ("1,2,\n3,4,\n", 1),
        ("1\n2\n3 4\n", 3),
        ("101\train\n", 1),
        ("101,102,103\n", 1),
        ("run_id x\n0 101 a\n", 2),  # a notebook's, with a number before each row
        ("run_id,x\n0,101,a\n", 2),
        ("prompt run_id\nrain 3 times 55\n", 2),
        ("name | run_id\na | b | 5\n", 2),
        ('{\n"run_id": 1\n', 1),
        ("{'run_id': 1}\n", 1),
    ],
)
def test_what_may_be_something_else(text: str, line: int) -> None:
    """Where a number may be of another column, or more than one, nothing is guessed."""
    assert [item.line for item in ids(text) if isinstance(item, BadId)][:1] == [line]


@given(st.integers(1, MAX_RUN_ID))
def test_no_cell_is_another_id(number: int) -> None:
    """However a number is written, what is read is that number or a mistake."""
    for text in (
        repr(float(number)),
        f"{number:e}",
        f"{number:.18e}",
        f"{number:,}",
        f"{number:,}".replace(",", "."),
        f"{number:,}".replace(",", "\xa0"),
        f"{number:G}",
        f"{number}.0",
        f' ="{number}" ',
    ):
        for found in (parse_cell(text), *ids(text), *ids(f"run_id\n{text}\n")):
            assert found == number or isinstance(found, str | BadId), text
    assert parse_cell(f' ="{number}" ') == number


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\n", "# none\n", "[]", " [ \n ] \n", "run_id\n"])
def test_no_ids(text: str) -> None:
    """A file without ids is an empty list, and no mistake."""
    assert ids(text) == []


NOT_A_NUMBER = "is not a run id: a run id is a whole number"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1\nx\n3", [1, BadId(2, "x", NOT_A_NUMBER), 3], id="line"),
        pytest.param(
            "[1, 1e3, true, null, [], 007,\n 0]",
            [
                1,
                BadId(1, "1e3", SHORTENED),
                BadId(1, "true", NOT_A_NUMBER),
                BadId(1, "null", NOT_A_NUMBER),
                BadId(1, "[…]", NOT_A_NUMBER),
                BadId(1, "007", "has leading zeros"),
                BadId(2, "0", "is zero: run ids start at 1"),
            ],
            id="array-items",
        ),
        pytest.param("[1, {}]", [1, BadId(1, "{…}", "has no run_id")], id="object-without-id"),
        pytest.param("[1\n,2", [1, 2, BadId(2, "", "the array is not closed")], id="not-closed"),
        pytest.param("[1, x]", [1, BadId(1, "x]", "is not JSON")], id="not-json"),
        pytest.param("[1 2]", [1, BadId(1, "2]", "is not a comma or the array's end")], id="comma"),
        pytest.param("[1]\n2", [1, BadId(2, "2", "stands behind the array's end")], id="behind"),
        pytest.param(
            '{"run_id":1}\n{"id":2}\n{"run_id":\n{"run_id":null}\n{"run_id":1.0}',
            [
                1,
                BadId(2, '{"id":2}', "has no run_id"),
                BadId(3, '{"run_id":', "is not JSON"),
                BadId(4, "null", NOT_A_NUMBER),
                1,
            ],
            id="json-lines",
        ),
        pytest.param(
            "a,run_id\n1\n,2\nx,\n",
            [BadId(2, "1", "has no column run_id"), 2, BadId(4, "", "is empty")],
            id="csv",
        ),
        pytest.param(
            'run_id,a\n1,b\n2,"c\n3,d\n',
            [1, BadId(3, "", "is not readable as CSV (unexpected end of data)")],
            id="csv-quote-not-closed",
        ),
        pytest.param(
            "x\x00\x1b[31m" + "y" * 99,
            [BadId(1, "x[31m" + "y" * 54 + "…", NOT_A_NUMBER)],
            id="shown",
        ),
    ],
)
def test_mistakes(text: str, expected: list[int | BadId]) -> None:
    """A mistake is shown with its line, its text and what is wrong with it."""
    assert ids(text) == expected


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"run_id":' * 200_000, "[" + '{"a":' * 100_000, "[" + "9" * 10_000 + "]"],
    ids=["nested-array", "nested-object", "nested-item", "huge-integer"],
)
def test_hostile_texts(text: str) -> None:
    """Deep nesting and huge integers are mistakes like any other."""
    (found,) = ids(text)
    assert isinstance(found, BadId)
    assert len(found.value) <= 60


def test_long_arrays_need_little_memory() -> None:
    """A long array in one line is not made into a list."""
    text = f"[{','.join(str(number) for number in range(1, 100_001))}]"
    tracemalloc.start()
    try:
        count = sum(1 for _ in parse_ids([text]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 1_000_000


def test_lines_are_read_one_by_one() -> None:
    """An id is yielded before the next line is read."""

    def lines() -> Iterator[str]:
        yield "1\n"
        yield "2\n"
        raise AssertionError("read too far")

    found = parse_ids(lines())
    assert [next(found), next(found)] == [1, 2]


run_ids = st.lists(st.integers(1, MAX_RUN_ID), min_size=1, max_size=30)


@given(run_ids, st.sampled_from([None, 1]))
def test_all_formats_say_the_same(numbers: list[int], indent: int | None) -> None:
    """What one writes into any of the formats is what is read."""
    table = io.StringIO()
    rows = csv.writer(table, quoting=csv.QUOTE_ALL)
    rows.writerow(["note", "run_id"])
    rows.writerows((f'"{number}"\n,', number) for number in numbers)
    objects = [{"run_id": number, "x": "}],\n"} for number in numbers]
    for text in (
        "\n".join(str(number) for number in numbers),
        json.dumps(numbers, indent=indent),
        json.dumps([str(number) for number in numbers], indent=indent),
        json.dumps(objects, indent=indent),
        "\n".join(json.dumps(one) for one in objects),
        table.getvalue(),
    ):
        assert ids(text) == numbers


pieces = st.sampled_from(
    [
        "[",
        "]",
        "{",
        "}",
        '"',
        "run_id",
        '{"run_id":',
        ",",
        ":",
        "1",
        "0",
        "-",
        "\n",
        "#",
        " ",
        "\ufeff",
    ]
)


@given(st.lists(pieces | st.text(max_size=4), max_size=25).map("".join))
def test_no_text_raises(text: str) -> None:
    """Whatever the text, every id is in range and every mistake can be shown."""
    for item in ids(text):
        if isinstance(item, BadId):
            assert item.value.isprintable()
            assert item.reason
        elif isinstance(item, NoIdColumn):
            assert len(item.columns) > 1
        else:
            assert 1 <= item <= MAX_RUN_ID


@given(st.text())
def test_no_argument_raises(text: str) -> None:
    """An argument is an id or gets a reason."""
    parsed = parse_id(text)
    assert isinstance(parsed, str) or 1 <= parsed <= MAX_RUN_ID
