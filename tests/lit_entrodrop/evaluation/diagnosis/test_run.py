from pathlib import Path

import pytest

from lit_entrodrop.evaluation.diagnosis import diagnose
from lit_entrodrop.runs.evaluations import read_evaluations
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import Tiny, texts, write_corpus

# Random words: what the model learns beyond their frequencies is memorized.
OVERFITTING = {
    "--trainer.max_epochs": 12,
    "--model.optimizer.lr": 0.02,
    "--model.lm.architecture.hidden_size": 64,
    "--data.validation": 0.85,
}


def words(settings: dict[str, object]) -> list[object]:
    return [word for pair in settings.items() for word in pair]


@pytest.fixture(scope="module")
def overfitted(tiny_module: Tiny) -> Path:
    corpus = write_corpus(tiny_module.folder / "more.jsonl", texts(160))
    settings = words({**OVERFITTING, "--data.corpus": corpus})
    with pytest.warns(UserWarning, match=r"The model overfits from epoch .*best\.ckpt"):
        return tiny_module.run("fit", *settings, root="overfitted")


def test_provoked_overfitting_is_called_where_the_loss_turns(overfitted: Path) -> None:
    found = diagnose(overfitted)
    losses = read_metrics(overfitted)["val/loss"].dropna().to_numpy()
    turn = int(losses.argmin())
    assert losses[-1] > 1.05 * losses[turn]
    assert found.verdicts["all"].overfits
    assert abs(found.verdicts["all"].onset_epoch - (turn + 1)) <= 1
    rises = {
        name: read_metrics(overfitted)[f"val/loss_{name}_entropy"].dropna()
        for name in ("low", "mid", "high")
    }
    assert found.worst == max(rises, key=lambda name: rises[name].iloc[-1] - rises[name].min())
    assert found.sentences[0].startswith("The model overfits from epoch")
    assert "--config configs/recipes/scarce.yaml" in found.sentences[-1]


def test_a_run_with_enough_text_holds(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(600))
    run = tiny.run("fit", "--trainer.max_epochs", 3)
    found = diagnose(run)
    assert not found.overfits
    assert found.sentences[0].startswith("No overfitting shown up to epoch 3")


def test_losses_of_documents_add_up_to_the_metrics(overfitted: Path) -> None:
    metrics = read_metrics(overfitted)
    evaluations = read_evaluations(overfitted)
    assert [evaluation.epoch for evaluation in evaluations] == list(range(13))
    for evaluation in evaluations:
        row = metrics.loc[evaluation.step]
        expected = [
            row["val/loss"],
            *(row[f"val/loss_{n}_entropy"] for n in ("low", "mid", "high")),
        ]
        assert evaluation.loss.tolist() == pytest.approx(expected, rel=1e-6)
        assert evaluation.tokens[:, 1:].sum(1).tolist() == evaluation.tokens[:, 0].tolist()
        assert evaluation.histogram.sum() == evaluation.tokens[:, 0].sum()


def test_without_evaluations_there_is_no_diagnosis(tiny: Tiny) -> None:
    run = tiny.run("fit", "--monitors.evaluations", "null", "--trainer.max_epochs", 1)
    assert not (run / "evaluations").exists()
    with pytest.raises(ValueError, match=r"found none: .* monitors\.evaluations is null"):
        diagnose(run)


def test_a_run_without_loggers_is_diagnosed(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.logger", "false")
    verdict = diagnose(run).verdicts["all"]
    assert verdict.kind == "holds"
    assert verdict.clean_train_change is None
