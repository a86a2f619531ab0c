from benchmarks.data import data
from tests.benchmarks.helpers import rows_of


def test_data(tmp_path, monkeypatch):
    # A fresh process imports all libraries; test_memory shows that they work.
    monkeypatch.setattr("benchmarks.data.in_fresh_process", lambda measure, *args: measure(*args))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n<|endoftext|>\n".join(f"finding {n} of many" for n in range(300)))
    path = data(rounds=1, out=str(tmp_path), corpus=str(corpus), block_size=16)
    packed, cold, cached = rows_of(path)
    assert {"case", "seconds", "seconds_iqr", "tokens", "tokens_per_s"} <= cold.keys()
    assert packed["tokens"] == cold["tokens"] == cached["tokens"] > 0
