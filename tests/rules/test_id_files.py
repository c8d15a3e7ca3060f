from __future__ import annotations

import csv
import io
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\n", "# none\n", "[]", " [ \n ] \n", "run_id\n"])
def test_no_ids(text: str) -> None:
    """A file without ids is an empty list, and no mistake."""
    assert ids(text) == []


NOT_A_NUMBER = "is not a run id: a run id is a whole number"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1\nx\n3", [1, BadId(2, "x", NOT_A_NUMBER), 3], id="line"),
        pytest.param("1, 2", [BadId(1, "1, 2", NOT_A_NUMBER)], id="two-in-a-line"),
        pytest.param(
            "[1, 1e3, true, null, [], 007,\n 0]",
            [
                1,
                BadId(1, "1e3", NOT_A_NUMBER),
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
                BadId(5, "1.0", NOT_A_NUMBER),
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
