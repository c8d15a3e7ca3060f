from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, Driver

from downloader.rules.states import MAX_RUN_ID

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Answer, Caller


def _assert_refused(answer: Answer, driver: Driver, *said: str) -> None:
    assert (answer.code, answer.out) == (2, "")
    for text in said:
        assert text in answer.err
    assert driver.states() == {}
    assert driver.query("SELECT count(*) FROM run_events") == [(0,)]


def test_ids_as_arguments(call: Caller, driver: Driver) -> None:
    """Ids are tracked as they are typed; known ones are counted."""
    answer = call("submit", "1", "2", "3")
    assert (answer.code, answer.out, answer.err) == (0, "submitted 3 new, 0 already tracked\n", "")
    assert call("submit", "3", "4", "5", "6").out == "submitted 3 new, 1 already tracked\n"
    assert set(driver.states()) == {1, 2, 3, 4, 5, 6}


def test_json(call: Caller) -> None:
    """With --json the counts are the answer, on a line of their own."""
    call("submit", "1")
    answer = call("submit", "1", "2", "3", "4", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == '{"submitted": 3, "known": 1}\n'


def test_an_id_twice(call: Caller) -> None:
    """An id that comes twice in one call is tracked once, whether typed or read."""
    (call.folder / "ids").write_text("1\n2\n1\n", encoding="utf-8")
    answer = call("submit", "2", "2", "--file", "ids", "--json")
    assert answer.json == {"submitted": 2, "known": 3}


def test_another_type(call: Caller, driver: Driver) -> None:
    """Ids are of the type that is named; the same id of another type is another run."""
    call("submit", "1")
    assert call("submit", "1", "--type", OTHER_TYPE, "--json").json == {"submitted": 1, "known": 0}
    assert len(driver.query("SELECT 1 FROM runs WHERE run_id = 1")) == 2
    answer = call("submit", "1", "--type", "nope")
    assert answer.code == 2
    assert "text-to-sound" in answer.err


FORMATS = {
    "lines": "1\n2\n3\n",
    "no end of the last line": "1\n2\n3",
    "Windows": "1\r\n2\r\n3\r\n",
    "old Mac": "1\r2\r3",
    "blanks and comments": "# of May\n\n  1  \n2 # the second\n\t3\n   \n#4\n",
    "a mark of byte order": "\ufeff1\n2\n3\n",
    "JSON array": "[1, 2, 3]",
    "JSON array over lines": '\ufeff[\r\n  1,\r\n  "2",\r\n  {"run_id": 3, "name": "x"}\r\n]\r\n',
    "JSON lines": '{"run_id": 1}\n{"run_id": "2", "a": {"b": [1]}}\n\n{"a": 9, "run_id": 3}\n',
    "CSV": 'name,run_id\nx,1\n"a, b",2\n,3\n',
    "CSV of Excel": "\ufeffrun_id;name\r\n1;ä\r\n2;b\r\n3;c\r\n",
    "CSV with tabs": "run_id\tname\n1\ta\n2\tb\n3\tc\n",
    "Excel says how it separates": "sep=;\r\nrun_id;name\r\n1;a,b\r\n2;\r\n3;c\r\n",
    "a list that was pasted": "1, 2,\n3\n",
    "psql": " run_id |  name   \n--------+---------\n      1 | a\n      2 | b\n"
    "      3 | c d\n(3 rows)\n",
    "JSON by jq": '{\n  "run_id": 1,\n  "x": [\n    {}\n  ]\n}\n'
    '{\n  "run_id": 2\n}\n{"run_id": 3}\n',
    "the service's answer": '{"1": {"output_url": "https://s.example/1"}, "2": null, "3": {}}',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "utf-32"])
@pytest.mark.parametrize("name", ["Windows", "CSV of Excel", "CSV with tabs", "JSON array"])
def test_encodings(call: Caller, driver: Driver, name: str, encoding: str) -> None:
    """What Windows' programs write is read, from a file and from a pipe alike."""
    text = FORMATS[name].removeprefix("\ufeff")
    if encoding == "utf-16-be-bom":
        content = b"\xfe\xff" + text.encode("utf-16-be")
    else:
        content = text.encode(encoding)
    (call.folder / "ids").write_bytes(content)
    answer = call("submit", "--file", "ids")
    assert (answer.code, answer.out) == (0, "submitted 3 new, 0 already tracked\n"), answer.err
    answer = call("submit", "--file", "-", stdin=content)
    assert (answer.code, answer.out) == (0, "submitted 0 new, 3 already tracked\n"), answer.err
    assert set(driver.states()) == {1, 2, 3}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_an_encoding_without_a_mark(call: Caller, driver: Driver, encoding: str) -> None:
    """UTF-16 is known by its ends of lines, too."""
    (call.folder / "ids").write_bytes("101\r\n102\r\n".encode(encoding))
    assert call("submit", "--file", "ids").code == 0
    assert set(driver.states()) == {101, 102}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\0", "ids is a zip file, as Excel's .xlsx and .ods are: open it, and"),
        (b"\xd0\xcf\x11\xe0\xa1", "ids is a workbook of Excel's"),
        (gzip.compress(b"1\n", mtime=0), "unpack it first, with gunzip"),
        (b"%PDF-1.7\n", "ids is a PDF"),
        (b"SQLite format 3\0", "ids is an SQLite database"),
    ],
    ids=["xlsx", "xls", "gzip", "pdf", "sqlite"],
)
def test_files_of_other_kinds(call: Caller, driver: Driver, content: bytes, said: str) -> None:
    """A file that is no text is told for what it is, with what to do, in one line."""
    (call.folder / "ids").write_bytes(content)
    answer = call("submit", "1", "--file", "ids")
    _assert_refused(answer, driver, said, "Nothing was recorded")
    assert len(answer.err.splitlines()) == 1
    _assert_refused(call("submit", "--file", "-", stdin=content), driver, "standard input is ")


@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_formats(call: Caller, driver: Driver, text: str, way: str) -> None:
    """Every usual format of ids is read, from a file and from a pipe alike."""
    (call.folder / "ids").write_bytes(text.encode())
    answer = call("submit", "--file", "ids" if way == "file" else "-", stdin=text)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "submitted 3 new, 0 already tracked\n"
    assert set(driver.states()) == {1, 2, 3}


def test_arguments_and_files_together(call: Caller, driver: Driver) -> None:
    """Arguments, several files and a pipe make one submission."""
    for number in (2, 3):
        (call.folder / f"ids{number}").write_text(f"{number}\n", encoding="utf-8")
    answer = call("submit", "1", "--file", "ids2", "--file", "-", "--file", "ids3", stdin="4\n")
    assert answer.out == "submitted 4 new, 0 already tracked\n"
    assert set(driver.states()) == {1, 2, 3, 4}


BAD = {
    str(MAX_RUN_ID + 1): "too large",
    "0": "is zero",
    "1.5": "whole number",
    "abc": "whole number",
    "007": "leading zeros",
    "1e3": "whole number",
    "12_000": "whole number",
    "١٢": "whole number",
    "": "is empty",
}


@pytest.mark.parametrize(("bad", "reason"), BAD.items())
def test_a_bad_argument_among_good_ones(
    call: Caller, driver: Driver, bad: str, reason: str
) -> None:
    """One bad id among the arguments, wherever it stands, and nothing is recorded."""
    for arguments in ([bad, "1", "2"], ["1", bad, "2"], ["1", "2", bad]):
        answer = call("submit", *arguments)
        _assert_refused(answer, driver, "1 bad run id; nothing was recorded", repr(bad), reason)


@pytest.mark.parametrize(("bad", "reason"), [*list(BAD.items())[:-1], ("-1", "is negative")])
def test_a_bad_id_in_a_file(call: Caller, driver: Driver, bad: str, reason: str) -> None:
    """One bad id in a file, and nothing is recorded; file, line and value are named."""
    (call.folder / "ids.txt").write_text(f"1\n\n2\n{bad}\n3\n", encoding="utf-8")
    answer = call("submit", "5", "--file", "ids.txt")
    _assert_refused(answer, driver, f"ids.txt, line 4: {bad!r}", reason)
    answer = call("submit", "--file", "-", stdin=f"{bad}\n")
    _assert_refused(answer, driver, f"standard input, line 1: {bad!r}", reason)


@pytest.mark.parametrize("arguments", [["-1"], ["--", "-1"], ["1", "-1"], ["1", "--", "-1", "2"]])
def test_a_negative_id(call: Caller, driver: Driver, arguments: list[str]) -> None:
    """A negative id is refused by its own value, also where it looks like an option."""
    answer = call("submit", *arguments)
    _assert_refused(answer, driver, "'-1'")


@pytest.mark.parametrize("place", [1, 9_999, 10_001, 25_000])
def test_all_or_nothing_of_a_long_file(call: Caller, driver: Driver, place: int) -> None:
    """A bad id far down in a long file leaves none of those before it recorded."""
    lines = [str(number) for number in range(1, 25_001)]
    lines[place - 1] = "oops"
    (call.folder / "ids").write_text("\n".join(lines), encoding="utf-8")
    _assert_refused(call("submit", "--file", "ids"), driver, f"ids, line {place}: 'oops'")


@pytest.mark.parametrize(
    "text",
    ["[1, 2, 1.5]", '{"run_id": 1}\n{"id": 2}\n', "run_id,x\n1,a\n-2,b\n", "[1, 2", "1\n[2]\n"],
)
def test_bad_ids_of_other_formats(call: Caller, driver: Driver, text: str) -> None:
    """Whatever the format, one bad id refuses the whole."""
    (call.folder / "ids").write_text(text, encoding="utf-8")
    _assert_refused(call("submit", "--file", "ids"), driver, "bad run id", "ids, line ")


def test_many_bad_ids(call: Caller, driver: Driver) -> None:
    """The first ten bad ids are shown, in their order, and how many more there are."""
    lines = "\n".join(f"bad{number}" for number in range(1, 24))
    answer = call("submit", "x", "--file", "-", stdin=lines)
    _assert_refused(answer, driver, "24 bad run ids; nothing was recorded")
    shown = answer.err.splitlines()[1:]
    assert shown[0].startswith("  'x' is not a run id")
    assert [line.split()[4] for line in shown[1:10]] == [f"'bad{n}'" for n in range(1, 10)]
    assert shown[10:] == ["  … and 14 more"]


def test_exactly_ten_bad_ids(call: Caller, driver: Driver) -> None:
    """Where ten are bad all are shown, and no others are told of."""
    answer = call("submit", *[f"bad{number}" for number in range(10)])
    _assert_refused(answer, driver, "'bad0'", "'bad9'")
    assert "more" not in answer.err


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only a comment\n", "[]", "run_id,name\n", "\ufeff"]
)
def test_no_ids_at_all(call: Caller, driver: Driver, text: str) -> None:
    """A file without ids is a mistake, and ids beside it are not recorded either."""
    (call.folder / "ids").write_text(text, encoding="utf-8")
    _assert_refused(call("submit", "1", "--file", "ids"), driver, "ids has no run ids")
    _assert_refused(call("submit", "--file", "-", stdin=text), driver, "standard input has no")


def test_nothing_to_submit(call: Caller, driver: Driver) -> None:
    """A call without ids says how to give them."""
    _assert_refused(call("submit"), driver, "Give run ids, or --file")


def test_files_that_cannot_be_read(call: Caller, driver: Driver) -> None:
    """A file that is not there, and a folder, are told as such; nothing is recorded."""
    answer = call("submit", "1", "--file", "missing.txt")
    _assert_refused(answer, driver, "missing.txt cannot be read: No such file or directory")
    answer = call("submit", "1", "--file", call.folder)
    _assert_refused(answer, driver, "cannot be read: Is a directory")


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 50,
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\xff\xfe1\x00x\x00\n\x00",
        b"\x1f\x8c\x08" * 9,
    ],
)
def test_garbage(call: Caller, driver: Driver, content: bytes) -> None:
    """What is no text at all is refused, and shown without control characters."""
    (call.folder / "ids").write_bytes(content)
    answer = call("submit", "1", "--file", "ids")
    _assert_refused(answer, driver, "ids, line ")
    assert all(character.isprintable() or character == "\n" for character in answer.err)


def test_a_secret_in_the_wrong_file(call: Caller, driver: Driver) -> None:
    """A line with a signed URL is refused without showing its signature."""
    url = "https://s.example/1.wav?X-Amz-Signature=5ec2e7"
    answer = call("submit", "--file", "-", stdin=f"1\n{url}\n")
    _assert_refused(answer, driver, "standard input, line 2", "https://s.example/1.wav")
    assert "5ec2e7" not in answer.err


def test_standard_input_twice(call: Caller, driver: Driver) -> None:
    """Standard input can be read once: naming it twice is a mistake."""
    answer = call("submit", "--file", "-", "--file", "-", stdin="1\n")
    _assert_refused(answer, driver, "Standard input can be read only once")


def test_standard_input_closed(call: Caller, driver: Driver) -> None:
    """A closed standard input is told as such."""
    answer = call("submit", "--file", "-", stdin=None)
    _assert_refused(answer, driver, "standard input is closed")


def test_a_name_like_standard_input(call: Caller, tmp_path: Path) -> None:
    """A file named `-` can still be read, by its path."""
    (tmp_path / "-").write_text("1\n", encoding="utf-8")
    assert call("submit", "--file", "./-").code == 0


@pytest.mark.parametrize("name", ["id", "ID", "Run ID", "runId", "run-id"])
def test_csv_with_another_name_for_the_ids(call: Caller, driver: Driver, name: str) -> None:
    """A column that is called id, or much like run_id, is taken where none is called run_id."""
    (call.folder / "ids.csv").write_text(f"prompt,{name}\nrain,11\nwind,12\n")
    assert call("submit", "--file", "ids.csv").out == "submitted 2 new, 0 already tracked\n"
    (call.folder / "ids.csv").write_text(f"{name};run_id\n1;13\n")
    assert call("submit", "--file", "ids.csv").out == "submitted 1 new, 0 already tracked\n"
    assert sorted(driver.states()) == [11, 12, 13]


def test_csv_without_ids(call: Caller, driver: Driver) -> None:
    """CSV in which no column is that of the ids gets one message, with the columns there are."""
    (call.folder / "x.csv").write_text("number,prompt\n" + "1,rain\n" * 50)
    answer = call("submit", "--file", "x.csv")
    _assert_refused(answer, driver, "x.csv looks like CSV, but has no column run_id", "line 1")
    assert "are: number, prompt. Name that of the ids run_id. Nothing was" in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["-", "my ids.csv"])
def test_a_file_in_the_place_of_an_id(call: Caller, driver: Driver, name: str) -> None:
    """Whoever names a file, or a pipe, as if it were an id is told what to type."""
    (call.folder / "my ids.csv").write_text("1\n")
    answer = call("submit", name, "--database", "runs.sqlite3")
    shown = f"'{name}'" if " " in name else name
    _assert_refused(answer, driver, f"`downloader submit --file {shown} --database runs.sqlite3`")
