from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from lit_entrodrop.commands.doctor.check import CheckResult, run_check
from lit_entrodrop.commands.doctor.schedule_checks import (
    epochs,
    learning_rate,
    parameter_groups,
    seeds,
    steps,
)
from lit_entrodrop.training.optim import LRSchedule, Muon, Optimization, ParameterRule
from regularizers import EntroDrop
from tests.helpers.doctor import make_run
from tests.helpers.tiny import Tiny

CHECKS = (epochs, steps, learning_rate, parameter_groups, seeds)


def only(check: Any, tiny: Tiny, **settings: Any) -> CheckResult:
    return run_check(check, make_run(tiny, **settings))


def adam(lr: float) -> dict[str, Any]:
    return {"class_path": "lit_entrodrop.training.optim.AdamW", "init_args": {"lr": lr}}


def test_usual_schedule_passes(tiny_module: Tiny) -> None:
    run = make_run(tiny_module)
    found = [run_check(check, run) for check in CHECKS]
    assert [check.status for check in found] == ["pass"] * len(CHECKS), found
    assert found[0].found.startswith("2 epochs of ")


def test_many_epochs_without_regularizer_are_reported(tiny_module: Tiny) -> None:
    run = make_run(tiny_module, trainer={"max_epochs": 20})
    check = run_check(epochs, run)
    assert check.status == "warn"
    assert "arXiv 2305.16264" in check.remedy
    regularized = make_run(tiny_module, EntroDrop(), trainer={"max_epochs": 20})
    assert run_check(epochs, regularized).status == "pass"


def test_steps_bound_epochs(tiny_module: Tiny) -> None:
    run = make_run(tiny_module, trainer={"max_epochs": 20, "max_steps": 5})
    assert run.steps == 5
    assert run_check(epochs, run).found.startswith("0.5 epochs")


def test_nothing_is_promised_of_a_validation_that_there_is_not(tiny_module: Tiny) -> None:
    check = only(epochs, tiny_module, data={"validation": 0})
    assert "val/loss" not in check.found
    assert "without a validation split" in check.found


def test_endless_run_fails(tiny_module: Tiny) -> None:
    check = only(steps, tiny_module, trainer={"max_epochs": -1})
    assert check.status == "fail"
    assert "max_epochs >= 1 or max_steps >= 1" in check.found


@pytest.mark.parametrize(
    ("warmup", "found"), [(500.0, "never reaches its peak"), (0.5, "10 of them warm-up")]
)
def test_long_warmup_is_reported(tiny_module: Tiny, warmup: float, found: str) -> None:
    schedule = {"warmup": warmup, "decay": "cosine", "final": 0.0}
    check = only(steps, tiny_module, model__lr_schedule=schedule)
    assert check.status == "warn"
    assert found in check.found
    assert "lr_schedule.warmup" in check.remedy


def test_few_steps_of_an_epoch_are_reported(tiny_module: Tiny) -> None:
    check = only(steps, tiny_module, trainer={"accumulate_grad_batches": 4})
    assert check.status == "warn"
    assert "accumulate_grad_batches" in check.remedy


@pytest.mark.parametrize("lr", [1.0, 1e-9])
def test_unusual_rate_is_reported(tiny_module: Tiny, lr: float) -> None:
    check = only(learning_rate, tiny_module, model__optimizer=adam(lr))
    assert check.status == "warn"
    assert "model.optimizer.init_args.lr" in check.remedy


def test_adapters_bear_higher_rates(tiny_module: Tiny) -> None:
    lora = {"rank": 2, "alpha": 2, "dropout": 0.0, "target_modules": "all-linear"}
    check = only(learning_rate, tiny_module, model__optimizer=adam(1e-4))
    assert "all weights" in check.found
    run = make_run(tiny_module, model__optimizer=adam(1e-4))
    run.config["model"]["lm"]["lora"] = lora
    check = run_check(learning_rate, run)
    assert check.status == "pass"
    assert "for adapters of" in check.found


def test_muon_has_the_rates_of_adamw_if_its_updates_have_their_size(tiny_module: Tiny) -> None:
    muon = {**adam(1.0), "class_path": "lit_entrodrop.training.optim.Muon"}
    assert only(learning_rate, tiny_module, model__optimizer=muon).status == "warn"
    muon["init_args"]["adjust_lr_fn"] = "original"
    assert "no usual range" in only(learning_rate, tiny_module, model__optimizer=muon).found


def test_groups_are_formed_and_their_rates_reported(tiny_module: Tiny) -> None:
    run = make_run(tiny_module)
    for lr, status in ((2.0, "pass"), (1e4, "warn")):
        rules = [ParameterRule("norm", lr=lr), ParameterRule("q_proj", freeze=True)]
        # Muon has a rate of its own for what AdamW trains.
        make = partial(Muon, lr=0.01, adamw_lr=0.005)
        run.module.optimization = Optimization(make, LRSchedule(), rules)
        run.__dict__["workload"] = replace(run.workload, rules=tuple(rules))
        check = run_check(parameter_groups, run)
        assert check.status == status
        assert f"norm, vectors: 80 parameters, learning rate {0.005 * lr:g}" in check.found
        assert "hidden matrices: 4,096 parameters, learning rate 0.01" in check.found
    run.__dict__["workload"] = replace(run.workload, rules=(ParameterRule("nrm"),))
    assert "model.groups: expected a pattern" in run_check(parameter_groups, run).found


def test_seed_by_chance_is_reported(tiny_module: Tiny) -> None:
    check = only(seeds, tiny_module, seed_everything=True)
    assert check.status == "warn"
    assert "seed_everything to a number" in check.remedy
