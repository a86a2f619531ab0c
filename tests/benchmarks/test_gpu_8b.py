import importlib.util
import math

import pytest

from benchmarks.gpu_8b import gpu_8b
from tests.benchmarks.helpers import rows_of


def test_it_trains_a_tiny_model_on_a_cpu(tmp_path):
    tiny = {"model": "tiny", "optimizer": "adamw", "length": 32, "batch_size": 2}
    [row] = rows_of(gpu_8b(steps=3, warmup=1, threads=1, device="cpu", out=str(tmp_path), **tiny))
    # Random weights know nothing of 4,096 words.
    assert len(row["losses"]) == 3
    assert row["losses"][0] == pytest.approx(math.log(4096), abs=0.2)
    assert len(set(row["losses"])) == 3
    assert row["tokens_per_s"] == pytest.approx(64 / (row["ms"] / 1e3))
    assert math.isnan(row["peak_gib"])


def test_what_it_cannot_do_is_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="warmup: expected less than 2 steps, got 2"):
        gpu_8b(steps=2, warmup=2, device="cpu", out=str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install torchao"):
        gpu_8b(model="tiny", device="cpu", length=32, threads=1, out=str(tmp_path))
