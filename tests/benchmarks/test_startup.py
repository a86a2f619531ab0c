from benchmarks import startup as benchmark
from benchmarks.startup import CASES, REFERENCE, describe, startup
from tests.benchmarks.helpers import rows_of


def test_each_case_is_a_process_and_related_to_the_reference(tmp_path, monkeypatch):
    # Importing the libraries would take most of a minute.
    quick = {name: CASES[name] for name in ("python", "--help", "unknown command", "regularizers")}
    monkeypatch.setattr(benchmark, "CASES", {REFERENCE: ("-c", "sum(range(10**7))"), **quick})
    rows = rows_of(startup(rounds=2, out=tmp_path))
    assert [row["case"] for row in rows] == [REFERENCE, *quick]
    assert rows[0]["ratio"] == 1
    assert all(row["cpu_s"] > 0 and row["rounds"] == 2 for row in rows)
    # What must appear at once does.
    assert all(row["cpu_s"] < 0.5 for row in rows[1:])


def test_ratio_is_of_cpu_time_within_rounds():
    [reference, case] = describe({REFERENCE: [(1.0, 9.0), (10.0, 9.0)], "x": [(2.0, 1), (20.0, 1)]})
    assert (reference["ratio"], case["ratio"], case["ratio_iqr"]) == (1.0, 2.0, 0.0)
    assert case["wall_s"] == 1
