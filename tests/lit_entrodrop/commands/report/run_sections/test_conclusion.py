"""Opening of the page of one or several runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from lit_entrodrop.commands.report.records.run_record import RunRecord, read_run
from lit_entrodrop.commands.report.run_sections.conclusion import conclude_run, conclude_runs
from lit_entrodrop.evaluation.diagnosis import Diagnosis, OverfittingVerdict
from tests.helpers.run_folder import write_run

HOLDS = OverfittingVerdict("holds", 8, 2.0, (8, 8), None, 0.0, (0.0, 0.0), 0.0, -0.1)
OVERFITS = OverfittingVerdict("overfits", 2, 2.0, (2, 2), 3, 0.2, (0.1, 0.3), 0.999, -0.4)
DIVERGES = replace(OVERFITS, kind="diverges", onset_epoch=None, clean_train_change=0.3)
UNKNOWN = replace(HOLDS, kind="unknown")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return read_run("mine", write_run(tmp_path_factory.mktemp("conclusion") / "mine"))


def diagnosed(run: RunRecord, verdict: OverfittingVerdict, regularized: bool = False) -> RunRecord:
    return replace(run, diagnosis=Diagnosis({"all": verdict}, [], 8, regularized))


def test_a_run_that_overfits(run: RunRecord) -> None:
    found = conclude_run(diagnosed(run, OVERFITS))
    assert found.headline == "The model overfits from epoch 3"
    assert "risen by 0.200 nats per token (95% interval 0.100 to 0.300)" in found.summary
    assert "Measured on 40 validation documents of hpo in one training run." in found.summary
    export, again, test = (step.command for step in found.next_steps)
    assert export.startswith("lit-entrodrop export --ckpt_path mine/checkpoints/best.ckpt")
    assert "--config configs/recipes/scarce.yaml" in again
    assert test == "lit-entrodrop compare --runs mine mine-scarce"


def test_a_regularized_run_that_overfits_gets_other_strengths(run: RunRecord) -> None:
    _, strengths = conclude_run(diagnosed(run, OVERFITS, regularized=True)).next_steps
    assert strengths.command == "lit-entrodrop compare --config configs/comparisons/entrodrop.yaml"


@pytest.mark.parametrize("verdict", [DIVERGES, replace(OVERFITS, best_epoch=0, onset_epoch=1)])
def test_a_run_that_gets_worse_gets_a_lower_rate(
    run: RunRecord, verdict: OverfittingVerdict
) -> None:
    slower, check = conclude_run(diagnosed(run, verdict)).next_steps
    assert "--model.optimizer.init_args.lr 0.0003 " in slower.command
    assert check.command == "lit-entrodrop doctor --config mine/config.yaml"


def test_a_run_whose_loss_still_falls_trains_longer(run: RunRecord) -> None:
    found = conclude_run(diagnosed(run, HOLDS))
    assert found.headline == "No overfitting shown up to epoch 8"
    assert found.summary.endswith("does not prove that there is none.")
    longer, _ = found.next_steps
    assert "--trainer.max_epochs 16" in longer.command


def test_a_run_past_its_best_is_exported(run: RunRecord) -> None:
    past = replace(HOLDS, best_epoch=5, rise=0.001)
    [export] = conclude_run(diagnosed(run, past)).next_steps
    assert "best.ckpt" in export.command


def test_a_run_with_one_validation_document_needs_more(run: RunRecord) -> None:
    more, export = conclude_run(diagnosed(run, UNKNOWN)).next_steps
    assert "raise data.validation" in more.text
    assert "best.ckpt" in export.command


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    new = read_run("mine", write_run(tmp_path / "mine", epochs=0))
    found = conclude_run(diagnosed(new, UNKNOWN))
    assert found.headline == "Too little data to judge whether the model overfits"
    assert found.next_steps[0].command.endswith("--config mine/config.yaml --ckpt_path last")


def test_a_run_without_losses_of_documents(tmp_path: Path) -> None:
    bare = read_run("bare", write_run(tmp_path / "bare", without=("evaluations",)))
    found = conclude_run(bare)
    assert found.headline == "The validation loss was lowest after epoch 5"
    assert "more than chance is not tested. There is no diagnosis" in found.summary
    short = read_run("bare", write_run(tmp_path / "short", epochs=3, without=("evaluations",)))
    assert (
        conclude_run(short).headline == "The validation loss is at its lowest after the last epoch"
    )
    new = read_run("bare", write_run(tmp_path / "new", epochs=0, without=("evaluations",)))
    assert conclude_run(new).headline == "Too early to judge: one evaluation so far"


def test_several_runs_are_not_called_different(run: RunRecord, tmp_path: Path) -> None:
    other = read_run("short", write_run(tmp_path / "short", epochs=2))
    found = conclude_runs([other, run])
    assert found.headline == "mine has the lowest validation loss, which is not a tested difference"
    assert "The differences are not tested and can be chance. mine overfits." in found.summary
    assert found.next_steps[0].command == "lit-entrodrop compare --runs short mine"


def test_several_runs_that_have_just_begun(tmp_path: Path) -> None:
    runs = [read_run(name, write_run(tmp_path / name, epochs=0)) for name in "ab"]
    assert conclude_runs(runs).headline.startswith("Too early to judge: none of 2 runs")
