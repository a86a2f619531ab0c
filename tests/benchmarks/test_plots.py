import json
import math

import pytest

from benchmarks.plots import PLOTS, plots

RECORD = {
    "date": "2026-01-02T03:04",
    "commit": "abc1234",
    "dirty": False,
    "device": "a CPU",
    "threads": 1,
    "versions": {"torch": "2.13"},
}
HEAD = {"vocab_size": 64, "head": "ours", "to_naive": 0.8, "to_naive_iqr": 0.01}
STEP = {"model": "tiny", "case": "plain", "ratio": 1.0, "ratio_iqr": math.nan}
GPU = {"model": "tiny", "length": 2048, "compiled": True}
ROWS = {
    "head": HEAD,
    "step": STEP,
    "regularizers": STEP,
    "overhead": {"case": "bare loop", "over_bare_ms": 0.2, "over_bare_ms_iqr": 0.1},
    "data": {"case": "cold start", "seconds": 2.0, "seconds_iqr": 0.1, "tokens": 1000},
    "peers": {"vocabulary": 64, "arm": "ours", "tokens_per_s": 9.0, "tokens_per_s_iqr": 1.0},
    "gpu": {**GPU, "mfu": 0.4},
    "gpu_step": {**STEP, **GPU},
    "gpu_head": HEAD,
}


@pytest.mark.parametrize("name", PLOTS)
def test_every_result_has_a_picture(name, tmp_path):
    record = {**RECORD, "benchmark": name, "rows": [ROWS[name]]}
    (tmp_path / f"{name}.json").write_text(json.dumps(record))
    [drawn] = plots(str(tmp_path), str(tmp_path / "pictures"))
    assert drawn == tmp_path / "pictures" / f"bench_{name}.png"
    assert drawn.stat().st_size > 10_000


def test_no_results_are_told(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        plots(str(tmp_path))
