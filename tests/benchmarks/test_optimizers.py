from benchmarks.optimizers import BASELINE, Case, optimizers
from lit_entrodrop.training.optim import AdamW, Muon
from tests.benchmarks.helpers import rows_of


def test_rates_are_chosen_by_validation_and_times_are_ratios(tmp_path, monkeypatch):
    few = {BASELINE: Case(AdamW, (1e-3, 1e-9)), "muon": Case(Muon, (1e-3,))}
    monkeypatch.setattr("benchmarks.optimizers.cases", lambda: few)
    settings = {"epochs": 1, "seeds": 2, "rounds": 2, "max_train_tokens": 1_500, "heldout": 0.001}
    adamw, muon = rows_of(optimizers(**settings, out=str(tmp_path)))
    assert adamw["rate"] == 1e-3
    assert min(adamw["val_loss_by_rate"]) == adamw["val_loss_by_rate"][0]
    assert len(set(adamw["test_losses"])) == 2
    assert adamw["time_ratio"] == 1
    assert (adamw["bytes_per_weight"], 4 < muon["bytes_per_weight"] < 8) == (8, True)
