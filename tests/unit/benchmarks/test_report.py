"""What the benchmarks make of their figures."""

from pathlib import Path

import pytest
from report import Report, Row, Split, median_round, split_table, table
from run_all import BEGIN, END, write


@pytest.mark.parametrize(
    ("row", "ratio", "missed"),
    [
        pytest.param(Row("latency", "s", 0.5, 5.0, "x"), 10.0, False, id="less is better"),
        pytest.param(Row("rate", "1/s", 20.0, 10.0, "x", more_is_better=True), 2.0, False, id="more is better"),
        pytest.param(Row("worse", "s", 2.0, 1.0, "x"), 0.5, False, id="nothing promised"),
        pytest.param(Row("alone", "s", 2.0), None, False, id="no peer"),
        pytest.param(Row("limit", "s", 1.0, at_most=1.0), None, False, id="just within the limit"),
        pytest.param(Row("limit", "s", 1.01, at_most=1.0), None, True, id="over the limit"),
        pytest.param(Row("ratio", "s", 1.0, 5.0, "x", ratio_at_least=5.0), 5.0, False, id="just the ratio"),
        pytest.param(Row("ratio", "s", 1.0, 4.0, "x", ratio_at_least=5.0), 4.0, True, id="less than the ratio"),
        pytest.param(Row("ratio", "s", 1.0, ratio_at_least=5.0), None, True, id="a ratio without a peer"),
        pytest.param(Row("none lost", "requests", 0, at_most=0), None, False, id="zero"),
        pytest.param(Row("none lost", "requests", 1, at_most=0), None, True, id="one too many"),
    ],
)
def test_a_row_knows_its_ratio_and_its_promise(row: Row, ratio: float | None, missed: bool) -> None:
    assert row.ratio == ratio
    assert row.missed is missed


def test_the_table_says_what_is_not_kept() -> None:
    rows = [Row("a", "s", 0.4, 2.0, "peer", at_most=1.0, ratio_at_least=5.0), Row("b", "s", 12.3, at_most=10.0)]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table([Report("one", rows[:1]), Report("two", rows[1:])]).splitlines()
    ]
    assert lines[0] == ["", "Lakeloop", "peer", "ratio", "target", "kept"]
    assert lines[2] == ["a, s", "0.40", "2.00 (peer)", "5.00", "≤ 1.00 s, ratio ≥ 5.00", "yes"]
    assert lines[3] == ["b, s", "12.3", "", "", "≤ 10.0 s", "no"]


def test_the_parts_are_those_of_the_median_round_and_add_up() -> None:
    split = Split(
        "Where it goes", median_round([[("a", 1.0), ("b", 5.0)], [("a", 3.0), ("b", 9.0)], [("a", 2.0), ("b", 6.5)]])
    )
    assert split.parts == [("a", 2.0), ("b", 6.5)]
    assert [line.strip("| ").split() for line in split_table(split).splitlines()][-1] == ["together", "|", "8.50"]


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = Report("s", [Row("a", "s", 1.0, at_most=2.0)], [Split("t", [("p", 1.0)])], ["n"])
    report.dump(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def test_only_what_is_between_the_marks_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(ValueError, match="has no lines"):
        write(page, "new")
    assert page.read_text() == "mine"
