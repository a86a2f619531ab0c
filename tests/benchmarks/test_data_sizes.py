from benchmarks.data_sizes import data_sizes
from tests.benchmarks.helpers import rows_of


def test_data_sizes(tmp_path, monkeypatch):
    # A fresh process imports all libraries; test_memory shows that they work.
    run = lambda measure, *args: measure(*args)  # noqa: E731
    monkeypatch.setattr("benchmarks.data_sizes.in_fresh_process", run)
    monkeypatch.setattr("benchmarks.data_sizes.MEDIUM", 10**5)
    rows = rows_of(data_sizes((), small_documents=100, long_document=1, out=str(tmp_path)))
    assert [row["case"] for row in rows] == ["0 MB of small documents", "one document of 1 MB"]
    assert [row["documents"] == 1 for row in rows] == [False, True]
    assert all(row["mb_per_cpu_s"] > 0 for row in rows)
