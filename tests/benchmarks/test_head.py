import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import head
from tests.benchmarks.helpers import rows_of

N, D, V = 256, 16, 96


@pytest.mark.parametrize(
    ("case", "products"),
    [("gemm", 6), ("naive", 6), ("ours", 6), ("ours, no entropy", 6), ("ours, recomputed", 8)],
)
def test_each_case_multiplies_as_often_as_it_says(case, products):
    inputs = head.draw(N, D, V)
    with FlopCounterMode(display=False) as counter:
        head.CASES[case](*inputs)
    assert counter.get_total_flops() == products * N * D * V


def test_the_entropy_can_be_left_out_where_pytorch_serves():
    assert "ours, no entropy" in head.available("cpu")
    assert "ours, no entropy" not in head.available("cuda")


def test_head(tmp_path, monkeypatch):
    # A fresh process imports all libraries; test_memory shows that they work.
    monkeypatch.setattr(head, "extra_memory", lambda *args, **options: 2**20)
    head.benchmark([V], N, D, rounds=2, threads=1, out=str(tmp_path), name="tiny_head")
    rows = {row["head"]: row for row in rows_of(tmp_path / "tiny_head.json")}
    assert list(rows) == list(head.available("cpu"))
    assert all(row["ms"] > 0 and row["extra_mib"] == 1 for row in rows.values())
    assert rows["naive"]["to_naive"] == rows["gemm"]["to_gemm"] == 1
    assert {"to_naive_iqr", "to_gemm_iqr", "ms_iqr", "rounds"} <= rows["ours"].keys()
