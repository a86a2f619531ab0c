from collections import defaultdict
from statistics import mean

import pytest

from benchmarks.live_fit import llama
from benchmarks.step import ARMS, BATCHES_PER_EPOCH, MODELS, step
from regularizers.token_dropout import TokenDropout
from tests.benchmarks.helpers import rows_of


@pytest.fixture
def drop_rates(monkeypatch):
    """What share of the tokens of each step is dropped, by kind and source of entropies."""
    rates = defaultdict(list)
    drop_mask = TokenDropout.drop_mask

    def recorded(self, step, generator):
        dropped = drop_mask(self, step, generator)
        rates[type(self).__name__, self.entropy_source].append(float(dropped.float().mean()))
        return dropped

    monkeypatch.setattr(TokenDropout, "drop_mask", recorded)
    return rates


def test_all_arms_but_plain_drop_tokens(tmp_path, monkeypatch, drop_rates):
    monkeypatch.setitem(MODELS, "tiny", llama(4096, hidden_size=32, layers=1))
    rows = rows_of(step(2, out=str(tmp_path), block_size=32, batch_size=4, models=["tiny"]))
    assert [row["case"] for row in rows] == list(ARMS)
    assert {"model", "ms", "ms_iqr", "ratio", "ratio_iqr", "rounds"} <= rows[0].keys()
    assert rows[0]["ratio"] == 1
    assert len(drop_rates) == len(ARMS) - 1
    for rates in drop_rates.values():
        # Two fifths of the low-entropy half, in the timed rounds.
        assert mean(rates[BATCHES_PER_EPOCH:]) == pytest.approx(0.2, abs=0.08)
    assert drop_rates["EntroDrop", "last_epoch"][0] == 0
