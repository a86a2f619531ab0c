import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import head
from benchmarks.gpu import ARCHITECTURES, PAIR, gpu, training_flops_per_token
from benchmarks.live_fit import TOKENIZER
from lit_entrodrop.model.building import build_causal_lm, build_hf_config
from lit_entrodrop.model.config import LMConfig
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
    config = build_hf_config(LMConfig(None, ARCHITECTURES["tiny"], TOKENIZER))
    flops_per_s = row["tokens_per_s"] * training_flops_per_token(config, 16)
    assert row["mfu"] == pytest.approx(flops_per_s / 0.5e12)
    assert row["batch_size"] == 2
    assert math.isnan(row["peak_gib"])

    pair = rows_of(tmp_path / "gpu_step.json")
    assert [each["case"] for each in pair] == list(PAIR) == ["plain", "EntroDrop, last_epoch"]
    assert {"model", "length", "compiled", "batch_size", "ratio", "ratio_iqr"} <= pair[1].keys()
    assert {"gemm", "naive", "ours"} <= {row["head"] for row in rows_of(tmp_path / "gpu_head.json")}


@pytest.mark.parametrize(
    ("model", "length", "gigaflops"),
    [
        ("qwen3-0.6b", 2048, 4.28),
        ("qwen3-0.6b", 8192, 6.39),
        ("qwen3-1.7b", 2048, 11.0),
        ("qwen3-1.7b", 8192, 13.1),
    ],
)
def test_flops_of_known_models(model, length, gigaflops):
    config = build_hf_config(LMConfig(None, ARCHITECTURES[model], TOKENIZER))
    assert training_flops_per_token(config, length) / 1e9 == pytest.approx(gigaflops, rel=5e-3)


def test_flops_are_those_that_torch_counts():
    lm = LMConfig(None, ARCHITECTURES["tiny"], TOKENIZER, attention="eager")
    model, ids = build_causal_lm(lm).hf_model, torch.arange(64)[None]
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    # Eager attention also computes what the mask hides: twice as much.
    config = build_hf_config(lm)
    attention = training_flops_per_token(config, 64) - training_flops_per_token(config, 0)
    counted = counter.get_total_flops() / 64
    assert counted == training_flops_per_token(config, 64) + attention
