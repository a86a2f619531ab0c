import math

import pytest

from benchmarks import head
from benchmarks.gpu import ARCHITECTURES, PAIR, gpu
from benchmarks.live_fit import TOKENIZER
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token
from tests.benchmarks.helpers import rows_of


def test_gpu_runs_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(head, "extra_memory", lambda *args, **options: 0)
    tiny = {"models": ["tiny"], "lengths": [16], "compiled": [False], "tokens_per_step": 32}
    tiny_head = {
        "head_vocab_size": 64,
        "head_tokens": 32,
        "head_dimensions": 8,
        "head_dtype": "float32",
    }
    own = {"device": "cpu", "out": str(tmp_path), "steps": 1, "peak_tflops": 0.5}
    [row] = rows_of(gpu(rounds=1, threads=1, **own, **tiny, **tiny_head))
    tiny_model = build_on_meta(LMConfig(None, ARCHITECTURES["tiny"], TOKENIZER))
    flops_per_s = row["tokens_per_s"] * training_flops_per_token(tiny_model, 16)
    assert row["mfu"] == pytest.approx(flops_per_s / 0.5e12)
    assert row["batch_size"] == 2
    assert math.isnan(row["peak_gib"])

    pair = rows_of(tmp_path / "gpu_step.json")
    assert [each["case"] for each in pair] == list(PAIR) == ["plain", "EntroDrop, last_epoch"]
    assert {"model", "length", "compiled", "batch_size", "ratio", "ratio_iqr"} <= pair[1].keys()
    assert {"gemm", "naive", "ours"} <= {row["head"] for row in rows_of(tmp_path / "gpu_head.json")}
