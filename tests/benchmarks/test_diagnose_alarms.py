from benchmarks import diagnose_alarms as benchmark
from benchmarks.diagnose_alarms import diagnose_alarms
from tests.benchmarks.helpers import rows_of


def test_false_alarms_are_rare_and_large_effects_are_found(tmp_path, monkeypatch):
    few = {"EVALUATIONS": (10,), "SCATTERS": (0.006,), "CORRELATIONS": (0.25,), "RISES": (0.0, 0.3)}
    stairs = {"EPOCHS": (3,), "ROWS": (40,), "BATCH_SCATTERS": (0.05,), "STAIRS": (0.0, 0.3)}
    for name, values in {**few, **stairs}.items():
        monkeypatch.setattr(benchmark, name, values)
    rows = rows_of(diagnose_alarms(curves=60, out=tmp_path))
    assert [row["finding"] for row in rows] == ["overfits"] * 3 + ["stair steps"] * 3
    assert all(row["found"] > 0.8 if row["true"] else row["found"] <= 0.1 for row in rows)
    assert sum(row["true"] for row in rows) == 2
