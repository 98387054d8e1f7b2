"""The run's table in the terminal, and the one rule of rounding that it shares with the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from report_runs import (
    PAYLOADS,
    SCORES,
    classified,
    draw,
    hidden_characters,
    metrics,
    record,
    score_rows,
    write_run,
)

from inlay.tuner.records import RunRecord
from inlay.tuner.report import figures
from inlay.tuner.report.terminal import table
from inlay.tuner.report.text import wrap


def test_terminal_prints_the_figures_of_the_page(tmp_path: Path) -> None:
    printed = table(record(), tmp_path)
    for row in score_rows(draw(tmp_path, record())):
        line = next(line for line in printed.splitlines() if line.startswith(row[0] + " "))
        direction = "higher" if "higher" in row[1] else "lower"
        assert re.split(r"\s{2,}", line) == [row[0], direction, row[2], row[4], row[6], row[7], row[8]]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_x13_terminal_escapes(payload: str) -> None:
    printed = table(record(payload, status="interrupted"), Path(f"runs/x{payload}"))
    assert not hidden_characters(printed)


def columns(line: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.mark.parametrize(
    "run",
    [
        record(),
        record("-and-a-name-that-is-much-longer-than-anybody-would-wish"),
        record("，上海股市周三收盘上涨，投资者对新的经济数据表示欢迎，分析师认为市场情绪正在改善"),
        record("e\u0301" * 40),
        record(metrics=metrics(text="_under_a_metric_name_longer_than_all_others")),
        record(status="failed", reason="out of memory " * 12, metrics=None, eval=None, train=None),
        classified(),
    ],
)
def test_terminal_fits_80_columns(run: RunRecord) -> None:
    printed = table(run, Path("runs/x"))
    assert max(columns(line) for line in printed.splitlines()) <= 80
    if run.metrics:
        starts = [line for line in printed.splitlines() if re.search(r"(better|worse|unclear)$", line)]
        assert len(starts) == len(SCORES)
        assert len({columns(re.sub(r"\w+$", "", line)) for line in starts}) == 1, "verdicts are not aligned"


def test_terminal_ends_with_what_can_be_pasted(tmp_path: Path) -> None:
    last = table(record(), Path("runs/my run")).splitlines()[-3:]
    assert last == [
        "look    runs/my run/report.html",
        "draw    inlay report 'runs/my run'",
        "again   inlay eval 'runs/my run'",
    ]


def test_terminal_is_ascii_where_the_stream_is(tmp_path: Path) -> None:
    write_run(tmp_path, record("价格"))
    code = "import sys, pathlib, inlay.tuner.report.terminal as t; t.print_table(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"\\u4ef7\\u683c" in done.stdout


@pytest.mark.parametrize(
    ("value", "ci95", "expected"),
    [
        (15.94, (15.4, 16.4), "15.9"),  # a width of 1.0: one decimal
        (15.94, (15.4, 16.35), "15.94"),  # 0.95
        (15.94, (15.90, 15.98), "15.940"),  # a width of 0.08
        (15.94, (15.9, 15.9999), "15.94"),  # 0.0999 is 0.10 in two digits
        (1082.4, (1060.0, 1110.0), "1082"),
        (1082.4, (900.0, 1300.0), "1080"),  # not even the ones are certain
        (-0.04, (-1.0, 1.0), "0.0"),  # no minus before zero
        (0.0, (0.0, 0.64), "0.00"),
        (37.214, None, "37.2"),
        (0.043216, (0.043216, 0.043216), "0.0432"),
        (1082.4, None, "1082"),
        (0.0, None, "0"),
    ],
)
def test_interval_decides_the_digits(value: float, ci95: tuple[float, float] | None, expected: str) -> None:
    assert figures.figure(value, ci95) == expected


def test_both_ends_of_an_interval_share_its_digits() -> None:
    assert figures.interval(0.84, (0.02, 1.66), signed=True) == "0.0 to +1.7"
    assert figures.interval(-96.56, (-96.8, -96.3), signed=True) == "-96.80 to -96.30"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (figures.duration(4.2), "4.20 s"),
        (figures.duration(59.7), "1 min 00 s"),
        (figures.duration(3599.8), "1 h 00 min"),
        (figures.size(999), "999 bytes"),
        (figures.size(999_999), "1.00 MB"),
        (figures.size(1_612_000_000), "1.61 GB"),
        (figures.plain(0.0002), "2e-4"),
        (figures.percent(0.035), "3.50 %"),
        (figures.counted(1, "row"), "1 row"),
        (figures.counted(2400, "row"), "2,400 rows"),
    ],
)
def test_plain_figures(printed: str, expected: str) -> None:
    assert printed == expected


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("股市昨日上涨 abc", ["股市昨日", "上涨 abc"]),
        ("abc 股市", ["abc 股市"]),
        ("abcdefghijk", ["abcdefgh", "ijk"]),
        ("", [""]),
    ],
)
def test_lines_are_wrapped_by_columns(text: str, lines: list[str]) -> None:
    assert wrap(text, 8) == lines


def test_what_fits_keeps_its_blanks():
    assert wrap("a   b  c", 8) == ["a   b  c"]
    assert wrap("a   b  c", 7) == ["a b c"]
    assert "   seed 0   " in table(record(), Path("runs/one"))
