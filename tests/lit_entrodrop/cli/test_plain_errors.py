"""Errors of the parser name the setting, what was expected and what was given."""

import re
from argparse import ArgumentError

import pytest

from lit_entrodrop.cli.fit_config import resolved_config

LINES = {
    "--trainer.max_epochs=many": "trainer.max_epochs: expected a whole number or null, got many",
    "--data.packing=maybe": "data.packing: expected true/false, got maybe",
    "--model.lm.dtype=f8": (
        "model.lm.dtype: expected one of 'float32', 'bfloat16', 'float16', got f8"
    ),
    "--model.lm.architecture=3": "model.lm.architecture: expected a mapping or null, got 3",
    "--model.lm.lora.rank=x": "model.lm.lora.rank: expected a whole number, got x",
    "--model.lm.lora={rnk: 3}": "model.lm.lora: Option 'rnk' is not accepted: did you mean rank?",
    "--model.optimizer=torch.nn.Linear": (
        "model.optimizer: expected a subclass of Optimizer, got torch.nn.Linear"
    ),
    "--model.optimizer.lrr=1": "model.optimizer: Option 'lrr' is not accepted: did you mean lr?",
    "--model.optimizer.init_args.lr=x": "model.optimizer.lr: expected a number, got x",
    "--model.lr_schedule=3": "model.lr_schedule: expected a mapping of settings, got 3",
    "--model.regularizers=3": "model.regularizers: expected a list, got 3",
    "--model.regularizers=[{class_path: EntroDrop, init_args: {curriculum: {class_path: A}}}]": (
        "model.regularizers.curriculum: expected a Curriculum or a number, got {'class_path': 'A'}"
    ),
    "--data.order=a.b.C": (
        "data.order: expected the path of a class, as module.Class, got a.b.C: No module named 'a'"
    ),
    "--data.order={class_path: 3}": (
        "data.order: expected the path of a class, as module.Class, got another value"
    ),
    "--data.order=[1]": "data.order: expected a BlockOrder, got [1]",
    "--trainer.callbacks={class_path: EarlyStopping, init_args: {patience: x}}": (
        "trainer.callbacks.patience: expected a whole number, got x"
    ),
    "--trainer.callbacks=No": "trainer.callbacks: expected a list, a Callback or null, got No",
    "--trainer.callbacks=lit_entrodrop.callbacks.NaNGuard": (
        "trainer.callbacks: expected the path of a class, as module.Class, got "
        "lit_entrodrop.callbacks.NaNGuard: module 'lit_entrodrop' has no attribute 'callbacks': "
        "this class path is now lit_entrodrop.training.callbacks"
    ),
    "--model.average=abc": "model.average: expected an Average or null, got abc",
    "--data.batch_size=null": "data.batch_size: expected a whole number, got null",
    "--model.optimizer.betas=null": "model.optimizer.betas: expected a list, got null",
    "--model.lr_schedule.decay=null": (
        "model.lr_schedule.decay: expected one of 'cosine', 'linear', 'constant', got null"
    ),
    "--model.regularizers=[{class_path: EntroDrop, init_args: {curriculum: null}}]": (
        "model.regularizers.curriculum: expected a Curriculum or a number, got null"
    ),
    "--model.regularizers=[{class_path: EntroDrop, init_args: null}]": (
        "model.regularizers: expected a mapping of settings for init_args, got null"
    ),
    "--model.regularizers=[{class_path: ZLoss, dict_kwargs: {a: 1}}]": (
        "dict_kwargs: expected none for regularizers.ZLoss, got a: use init_args"
    ),
    "--model.lr_schedule={class_path: regularizers.ZLoss}": (
        "model.lr_schedule: expected the settings of LRSchedule, got regularizers.ZLoss"
    ),
    "--config=[1, 2]": "expected a mapping of settings, got [1, 2]",
    "--config={data: 3}": "expected a mapping of settings for data, got another value",
}


@pytest.mark.parametrize("flag", LINES)
def test_line_names_setting_expectation_and_value(flag: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        resolved_config([flag])
    assert re.sub(r"\s+", " ", str(raised.value)) == LINES[flag]


def test_null_is_accepted_where_it_means_something() -> None:
    flags = ["--trainer.gradient_clip_val=null", "--data.cache_dir=null", "--model.lm.lora=null"]
    assert resolved_config(flags)["trainer"]["gradient_clip_val"] is None


def test_long_value_is_cut() -> None:
    with pytest.raises(ArgumentError) as raised:
        resolved_config([f"--data.batch_size={'x' * 1000}"])
    assert len(str(raised.value)) < 300
