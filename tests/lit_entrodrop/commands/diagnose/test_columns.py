import pytest

from lit_entrodrop.commands.diagnose.columns import loss_columns


@pytest.mark.parametrize(
    ("names", "training", "validation"),
    [
        (["loss", "grad_norm", "eval_loss", "eval_runtime", "epoch"], "loss", "eval_loss"),
        (["train_loss_step", "train_loss_epoch", "val_loss"], "train_loss_step", "val_loss"),
        (["train/loss", "eval/loss", "train/learning_rate"], "train/loss", "eval/loss"),
        (["Loss/train", "Loss/validation", "Accuracy/train"], "Loss/train", "Loss/validation"),
        (["trainLoss", "validLoss_epoch", "validLoss_step"], "trainLoss", "validLoss_epoch"),
        (["epoch", "loss", "val_loss", "val_accuracy"], "loss", "val_loss"),
        (["train/ce_loss", "dev/nll", "dev/aux_loss"], "train/ce_loss", "dev/nll"),
        (["gap/loss", "test_loss", "loss_scale", "train_loss"], "train_loss", None),
    ],
)
def test_losses_are_found_by_name(names: list[str], training: str, validation: str | None) -> None:
    found = loss_columns(names)
    assert found.training == training
    assert found.validations[:1] == ([validation] if validation else [])


def test_several_validation_sets_are_found_and_one_is_judged_first() -> None:
    names = ["loss", "eval_wiki_loss", "eval_code_loss", "eval_wiki_runtime"]
    assert loss_columns(names).validations == ["eval_code_loss", "eval_wiki_loss"]
    chosen = loss_columns(names, validation="eval_wiki_loss").validations
    assert chosen == ["eval_wiki_loss", "eval_code_loss"]


def test_wrong_and_missing_names_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^validation: .* got eval_los: did you mean eval_loss\?"):
        loss_columns(["loss", "eval_loss"], validation="eval_los")
    with pytest.raises(ValueError, match=r"no name with `loss` among eval_accuracy, step"):
        loss_columns(["eval_accuracy", "step"])
