from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.__main__ import Record, chosen
from bench.catalogue import catalogue
from bench.figures import Series, bins, histograms, percentile, table, tick


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (50, 50.0), (95, 95.0), (99.5, 100.0), (100, 100.0)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    percent: float, value: float
) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == value


def test_a_table_tells_of_failed_runs_and_of_the_95th_percentile_of_many() -> None:
    few = table("Title", [{"ms": 1.0}, {"ms": 30.0}], failures=1)
    assert "**Title** (2 runs, 1 failed)" in few
    assert "| ms | 15.5 | 1.00 | 30.0 |" in few
    assert "p95" not in few
    assert table("T", [{"ms": float(n)} for n in range(1, 101)]).endswith("| 95.0 |")
    assert "0 runs, 3 failed" in table("T", [], failures=3)


def test_a_histogram_draws_every_value_once_and_the_promise() -> None:
    drawn = histograms(
        [Series("a's", "ms", [100.0, 101.0, 480.0], 500.0), Series("b", "ms", [3.0])]
    )
    bars = [each for each in ElementTree.fromstring(drawn).iter() if each.get("class") == "bar"]  # noqa: S314 # our own
    assert len(bars) == 3
    assert "p95 480" in drawn
    assert drawn.count("p95 to reach") == 1
    assert sum(bins([0.0, 1.0, 10.0], 10.0)) == 3
    assert tick(2550) == 500


def test_the_beginning_of_a_name_stands_for_all_that_begin_so() -> None:
    benches = catalogue(200, 60)
    assert chosen(["failover", "handover"], benches) == [
        "failover-fast",
        "failover-normal",
        "handover",
    ]
    assert chosen(["start"], benches) == ["start"]
    assert len(chosen([], benches)) == len(benches) + 2
    with pytest.raises(ValueError, match="no benchmark is called 'speed'"):
        chosen(["speed"], benches)


def test_only_the_controllers_need_a_cluster(tmp_path: Path) -> None:
    lacking = [name for name, bench in catalogue(200, 60).items() if bench.lacks]
    assert lacking == ["controller-create", "controller-repair", "controller-many"]
    assert not [name for name, bench in catalogue(200, 60, tmp_path).items() if bench.lacks]


def test_a_series_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    first = Record.at(file, keep=True)
    first.add({"ms": 1.0})
    first.fail("it did not start")
    again = Record.at(file, keep=True)
    assert (again.runs, again.failures) == ([{"ms": 1.0}], ["it did not start"])
    assert Record.at(file, keep=False).runs == []
    assert [
        json.loads(line)["at"][:2] for line in file.with_suffix(".old").read_text().splitlines()
    ] == ["20", "20"]
