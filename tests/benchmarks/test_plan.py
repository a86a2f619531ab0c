import pytest

from benchmarks import plan
from benchmarks.live_fit import llama


def test_a_small_training_takes_what_was_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in plan.EXACT_MALLOC.items():
        monkeypatch.setenv(name, value)
    row = plan.row(plan.Case("tiny", llama(4096, 320, 2), batch_size=4, block_size=256))
    assert row["error"] == pytest.approx(0, abs=0.15)


def test_two_ranks_hold_half_the_states_and_gather_weights() -> None:
    lm = llama(4096, 64, 2)
    alone, shared = (plan.predict(plan.Case("tiny", lm, 1, 32, ranks=ranks)) for ranks in (1, 2))
    assert shared["states"] == alone["states"] // 2
    assert alone["gathered"] == 0
    # All of this small model: two blocks and what is around them.
    assert shared["gathered"] == alone["states"] // 3
