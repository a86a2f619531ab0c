import gc
import weakref

import pytest

from benchmarks import live_fit
from benchmarks.live_fit import LiveFit, fine_tuning, llama, topics_data
from lit_entrodrop.training.module import LitCausalLM


def test_a_failing_fit_reports_its_error():
    def fail(gate):
        raise ValueError("no such corpus")

    with pytest.raises(ValueError, match="no such corpus"):
        LiveFit(fail)


def test_a_fit_that_ends_too_early_tells():
    with pytest.raises(RuntimeError, match="increase its steps"):
        LiveFit(lambda gate: None)


def test_a_closed_fit_lets_go_of_its_model(tmp_path, monkeypatch):
    models = weakref.WeakSet()

    def build(*args, **options):
        models.add(module := LitCausalLM(*args, **options))
        return module

    monkeypatch.setattr(live_fit, "LitCausalLM", build)
    lm = llama(4096, hidden_size=32, layers=1)
    live = fine_tuning(
        lm, [], topics_data(tmp_path, block_size=16, batch_size=2), steps=3, device="cpu"
    )
    live.advance()
    assert len(models) == 1
    live.close()
    gc.collect()
    assert len(models) == 0
