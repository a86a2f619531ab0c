from typing import Any

from lit_entrodrop.commands.verify_resume.short_run import KillSchedule, short_config


def trainer(**settings: Any) -> dict[str, Any]:
    defaults = {
        "max_steps": -1,
        "accumulate_grad_batches": 3,
        "callbacks": None,
        "limit_val_batches": None,
    }
    config = {"trainer": {**defaults, **settings}, "ckpt_path": "last", "model": {"seed": 1}}
    config["checkpoints"] = {"keep_last": 3}
    short = short_config(config, KillSchedule(12))
    assert short["ckpt_path"] is None
    assert short["model"] == {"seed": 1}
    bounded: dict[str, Any] = short["trainer"]
    return bounded


def test_steps_bound_the_short_run_only_where_they_bound_the_real_one() -> None:
    assert (trainer()["max_steps"], trainer()["max_epochs"]) == (-1, 2)
    assert trainer()["limit_train_batches"] == 6 * 3
    assert trainer(max_steps=1000)["max_steps"] == 12


def test_callbacks_stay_but_keep_out_of_other_folders() -> None:
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    saving = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "runs/mine", "every": 3}}
    first, second = trainer(callbacks=[stopping, saving])["callbacks"]
    assert first == stopping
    assert second == {**saving, "init_args": {"dirpath": None, "every": 3}}
    assert trainer(callbacks=stopping)["callbacks"] == [stopping]


def test_validation_is_short_or_stays_off() -> None:
    assert trainer()["limit_val_batches"] == 2
    assert trainer(limit_val_batches=0)["limit_val_batches"] == 0
