"""Ours and the Trainer of Transformers train the same thing, in turns."""

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.peers.comparison import peers
from benchmarks.peers.training import Shape

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="transformers.Trainer needs accelerate"
)


@needs_accelerate
def test_ours_and_the_trainer_train_the_same_thing(tmp_path: Path) -> None:
    arms = ["ours", "hf_trainer"]
    shape = Shape(hidden_size=16, layers=1, heads=2, block_size=16, batch_size=2)
    peers([64], shape, arms, rounds=2, turn=2, threads=1, env=None, out=str(tmp_path))

    written = json.loads((tmp_path / "peers.json").read_text())
    rows = {row["arm"]: row for row in written["rows"]}
    assert list(rows) == arms
    assert all(len(row["losses"]) == 3 for row in rows.values())
    assert rows["ours"]["losses"] == pytest.approx(rows["hf_trainer"]["losses"], abs=1e-4)
    assert rows["ours"]["last_loss"] == pytest.approx(rows["hf_trainer"]["last_loss"], abs=1e-4)
    assert all(row["tokens_per_s"] > 0 and row["peak_mib"] > 50 for row in rows.values())
    assert rows["hf_trainer"]["ours_speedup"] > 0
    assert "accelerate" in written["settings"]["versions"]["hf_trainer"]


def test_unknown_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="expected some of ours"):
        peers(arms=["axolotl"])
