"""Text files: how fields are quoted is found, every line is counted, and no record swallows another."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variseq.errors import InputError
from variseq.events import ingest
from variseq.events.options import ReadOptions
from variseq.events.read import read
from variseq.events.report import Events

pytestmark = pytest.mark.slow

HEADER = "user_id,item_id,timestamp,title"


def accounted(events: Events) -> int:
    report = events.report
    return report.num_events + sum(report.rejected.values()) + sum(report.filtered.values())


def rows_of(events: Events) -> list[tuple[object, object, int]]:
    vocabulary, table = events.vocabulary, events.table
    users, items = vocabulary.user_ids(table.user), vocabulary.item_ids(table.item)
    return list(zip(users, items, (table.timestamp // 1_000_000).tolist(), strict=True))


def write(folder: Path, lines: list[str], name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def plain_lines(num_rows: int, delimiter: str = ",") -> list[str]:
    return [delimiter.join([f"u{row % 3}", f"i{row}", str(1600000000 + row), f"Song {row}"]) for row in range(num_rows)]


@pytest.mark.parametrize("title", ['"Heroes" (live)', '12" single', '"Unfinished', 'say "no"', '"'])
def test_quotes_of_an_unquoted_file_are_text(title: str, tmp_path: Path) -> None:
    lines = plain_lines(12, "\t")
    lines[4] = "\t".join([*lines[4].split("\t")[:3], title])
    lines[8] = "\t".join([*lines[8].split("\t")[:3], 'closing 7"'])
    path = write(tmp_path, [HEADER.replace(",", "\t"), *lines], "plays.tsv")
    events = read(path)
    assert events.report.num_events == events.report.num_rows == 12
    assert read(path, options=ReadOptions(quoting="none")).report.num_events == 12


def test_unclosed_quote_among_quoted_fields_is_one_rejected_row(tmp_path: Path) -> None:
    lines = plain_lines(12)
    lines[2] = 'u9,i2,1600000002,"Song, with a comma"'
    lines[5] = 'u9,i5,1600000005,"never closed'
    lines[9] = 'u9,i9,1600000009,12" disk'
    events = read(write(tmp_path, [HEADER, *lines]))
    assert events.report.rejected == {"unbalanced quote": 1}
    assert events.report.num_rows == accounted(events) == 12
    assert "row 6" in events.report.first_faults["unbalanced quote"]


def test_broken_lines_in_a_row_keep_their_numbers(tmp_path: Path) -> None:
    lines = [*plain_lines(3), *(f"u,broken {row}" for row in range(50)), *plain_lines(2)]
    rejects = tmp_path / "rejects.csv"
    read(write(tmp_path, [HEADER, *lines]), options=ReadOptions(rejects=rejects))
    with rejects.open() as file:
        found = [(int(row["row"]), row["line"]) for row in csv.DictReader(file) if row["line"]]
    assert found == [(row + 4, f"u,broken {row}") for row in range(50)]


def test_quote_that_is_never_closed_at_all_costs_one_row(tmp_path: Path) -> None:
    lines = plain_lines(3000)
    lines[0] = 'u0,i0,1600000000,"Song, quoted"'
    lines[10] = 'u1,i10,1600000010,"open, and never closed'
    events = read(write(tmp_path, [HEADER, *lines]))
    assert (events.report.num_events, sum(events.report.rejected.values())) == (2999, 1)


SWALLOWING = {
    "delimiter in the broken title": ['u1,"Heroes, live,1600000000', "u2,i2,1600000001", 'u4,Monitor 19",1600000003'],
    "only the closing line": ['u1,"Heroes, live,1600000000', 'u4,Monitor 19",1600000003'],
    "short line between": ['u1,"i1,1600000000', "u2,i2,1600000001", "u3,i3", 'u4,x",1600000003'],
    "comment between": ['u1,"i1,1600000000', "u2,i2,1600000001", "# end of page 1", 'u4,x",1600000003'],
}


@pytest.mark.parametrize("case", SWALLOWING)
def test_unclosed_quote_takes_no_other_row_with_it(case: str, tmp_path: Path) -> None:
    good = [f"u{row % 3},i{row},{1600000100 + row}" for row in range(40)]
    quoted = 'u9,"quoted, properly",1600000200'
    lines = ["user_id,item_id,timestamp", *good[:20], quoted, *SWALLOWING[case], *good[20:]]
    events = read(write(tmp_path, lines))
    assert {row[1] for row in rows_of(events)} >= {f"i{row}" for row in range(40)} | {"quoted, properly"}
    assert events.report.num_rows == accounted(events) == len(lines) - 1


def test_many_unclosed_quotes_among_quoted_rows_are_read_in_one_go(tmp_path: Path) -> None:
    text = "review text, " * 20
    lines = [
        f'u{row % 500},i{row % 99},{1600000000 + row},"{text}' + ("" if row % 100 == 99 else '"') for row in range(5000)
    ]
    events = read(write(tmp_path, [HEADER, *lines]))
    assert (events.report.num_events, events.report.rejected) == (4950, {"unbalanced quote": 50})


def test_invalid_utf8_within_several_lines_is_one_rejected_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'user_id,item_id,timestamp\nu1,"a\n\xff",1600000000\nu2,b,1600000000\n')
    events = read(tmp_path / "log.csv")
    assert (events.report.num_events, events.report.rejected) == (1, {"invalid UTF-8": 1})


def test_rows_with_numbers_in_front_are_refused_where_the_header_has_no_name(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp,rating"]
    lines += [f"{row},50{row},33,{1600000000 + row},{5 if row == 3 else ''}" for row in range(1, 5)]
    with pytest.raises(InputError, match="row numbers"):
        read(write(tmp_path, lines))


@pytest.mark.parametrize("line", ["sep=;", "# export of 2020-01-01", '{"user_id": 1}'])
def test_line_above_the_header_is_refused_and_shown(line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"first line is|JSON"):
        read(write(tmp_path, [line, HEADER, *plain_lines(3)]))


# lines, options, and all items
READ: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "every line opens a quote": (
        [HEADER, *(f'u{row % 3},i{row},{1600000000 + row},"open {row}' for row in range(9))], {},
        [f"i{row}" for row in range(9)],
    ),
    "backslash that escapes no quote": (
        [HEADER, 'u1,"say \\"x\\"",1600000000,a', 'u2,"C:\\new",1600000100,a', "u2,C:\\new,1600000200,a"], {},
        ["C:\\new", 'say "x"'],
    ),
    "blank as delimiter": (
        ['"user_id" "item_id" "timestamp"', '"u1" "i 1" 1600000000', "u2 i2 1600000100"], {"delimiter": " "},
        ["i 1", "i2"],
    ),
    "header with a line break and spare columns": (
        ['user_id,item_id,timestamp,"Price\n(EUR)",,', "u1,i1,1600000000,5,,", "u2,i2,1600000001,6,,"], {},
        ["i1", "i2"],
    ),
    "quote that is set holds for the header": (
        ["'uid','a, b','iid','ts'", "'u1',x,'i,1',1600000000", "'u2',x,'i2',1600000000"],
        {"quote": "'", "columns": {"user_id": "uid", "item_id": "iid"}}, ["i,1", "i2"],
    ),
    "quote that is set": (
        [HEADER, "u1,'i,1',1600000000,'it''s'", *plain_lines(2)], {"quote": "'"}, ["i,1", "i0", "i1"],
    ),
    "escape that is set": (
        [HEADER, "u1,'i^'1',1600000000,x", *plain_lines(2)], {"quote": "'", "escape": "^"}, ["i'1", "i0", "i1"],
    ),
    "quotes as Spark writes them": (
        [HEADER, 'u1,"i \\"x\\", y",1600000001,b', *plain_lines(2)], {}, ['i "x", y', "i0", "i1"],
    ),
    "doubled quotes": ([HEADER, 'u1,"i ""x""",1600000000,a', *plain_lines(2)], {}, ['i "x"', "i0", "i1"]),
    "line breaks within quotes": (
        [HEADER, 'u1,"two\nlines",1600000000,a', 'u1,"three\n\nlines, and more",1600000001,b', *plain_lines(2)], {},
        ["i0", "i1", "three\n\nlines, and more", "two\nlines"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_fields_are_read_as_they_are_quoted(case: str, tmp_path: Path) -> None:
    lines, options, items = READ[case]
    events = read(write(tmp_path, lines), options=ReadOptions(**options))
    assert events.vocabulary.items.to_pylist() == items
    assert events.report.rejected == {}
    assert (case != "quotes as Spark writes them") or any("written \\" in note for note in events.report.notes)


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_and_line_ends_are_no_rows(name: str, end: str, tmp_path: Path) -> None:
    text = end.join([HEADER, "", *plain_lines(3), "", "", "u1,bad", *plain_lines(2), ""])
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    events = read(tmp_path / name)
    assert events.report.num_rows == accounted(events) == 6
    assert "row 4" in events.report.first_faults["wrong number of fields"]


def test_cut_off_gzip_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join([HEADER, *plain_lines(200_000)]).encode(), compresslevel=1)
    (tmp_path / "log.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cut off"):
        read(tmp_path / "log.csv.gz")


def test_rows_that_end_in_one_delimiter_more_are_read(tmp_path: Path) -> None:
    events = read(write(tmp_path, [HEADER, *(line + "," for line in plain_lines(6)), "u1,i1,1600000000,x"]))
    assert (events.report.num_rows, events.report.num_events) == (7, 7)
    assert any("delimiter" in note for note in events.report.notes)


FIELD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf"], include_characters=' ,;"\\\t\n'))
BROKEN = ["u1", "u1,i1,1600000000,x,y,z", "\udcffu,i,1600000000,x", ",i1,1600000000,x", "u1,i1,soon,x"]


@st.composite
def text_files(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str, int]], int]:
    """A file that a common writer made, with broken lines between; its good rows, and how many rows it has."""
    style = draw(st.sampled_from(["minimal", "all", "escaped", "none"]))
    delimiter = "," if style != "none" else "\t"
    names = draw(st.lists(FIELD, min_size=1, max_size=12))
    if style == "none":
        names = ["".join(letter for letter in name if letter not in "\t\n") for name in names]
    if style == "escaped" and not any('"' in name for name in names):  # nothing shows that a backslash escapes
        names = [name.replace("\\", "") for name in names]
    rows = [(f"u{place % 3}", f"a{name}z", 1600000000 + place) for place, name in enumerate(names)]
    text = io.StringIO()
    quoting = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL, "escaped": csv.QUOTE_ALL, "none": csv.QUOTE_NONE}
    writer = csv.writer(
        text,
        delimiter=delimiter,
        quoting=quoting[style],
        doublequote=style != "escaped",
        escapechar="\\" if style == "escaped" else None,
        quotechar=None if style == "none" else '"',
        lineterminator="\n",
    )
    records = [["user_id", "item_id", "timestamp", "title"], *([user, item, time, "t"] for user, item, time in rows)]
    lines = []
    for record in records:
        text.seek(0)
        text.truncate()
        writer.writerow(record)
        lines.append(text.getvalue().removesuffix("\n"))
    broken = draw(st.lists(st.sampled_from(BROKEN), max_size=4))
    for line in broken:
        lines.insert(draw(st.integers(1, len(lines))), line.replace(",", delimiter))
    end = draw(st.sampled_from(["", "\n", "\n\n"]))
    return ("\n".join(lines) + end).encode("utf-8", "surrogateescape"), rows, len(rows) + len(broken)


@settings(max_examples=12, deadline=None)
@given(file=text_files())
def test_every_row_of_any_text_file_is_kept_or_rejected_by_the_database_and_line_by_line(
    file: tuple[bytes, list[tuple[str, str, int]], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, rows, num_rows = file
    folder = tmp_path_factory.mktemp("text")
    path = folder / ("log.tsv" if b"\t" in content.split(b"\n")[0] else "log.csv")
    path.write_bytes(content)
    usual = read(path, options=ReadOptions(rejects=folder / "usual.csv"))
    assert usual.report.num_rows == accounted(usual) == num_rows
    assert sorted(rows_of(usual)) == sorted(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "_read_by_database", lambda *_: None)
        plain = read(path, options=ReadOptions(rejects=folder / "plain.csv"))
    assert rows_of(usual) == rows_of(plain)
    assert usual.report.rejected == plain.report.rejected
    assert (folder / "usual.csv").read_bytes() == (folder / "plain.csv").read_bytes()


def test_reading_is_refused_when_lines_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [HEADER, 'u1,"a\nb",1600000000,x', *plain_lines(5)])
    monkeypatch.setattr(ingest, "lines_of", lambda file: iter([HEADER, *plain_lines(5)]))
    with pytest.raises(InputError, match="counted"):
        read(path)
