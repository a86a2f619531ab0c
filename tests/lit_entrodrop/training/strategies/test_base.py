"""A new strategy is one file and one config; nothing else is edited."""

import pytest
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from pandas.testing import assert_frame_equal

from lit_entrodrop.runs.metrics_file import read_metrics
from lit_entrodrop.training.strategies import StrategyHooks, hooks_of
from tests.helpers import toy_strategy
from tests.helpers.tiny import Tiny

CONFIG = """\
trainer:
  strategy:
    class_path: tests.helpers.toy_strategy.ToyStrategy
"""


@pytest.fixture
def toy(tiny: Tiny) -> list[str]:
    toy_strategy.CALLED.clear()
    config = tiny.folder / "toy.yaml"
    config.write_text(CONFIG)
    return ["--config", str(config)]


def test_a_run_calls_every_hook_of_a_new_strategy(tiny: Tiny, toy: list[str]) -> None:
    fit = ["fit", "--trainer.max_steps=2"]
    clip = "--trainer.gradient_clip_val={}".format
    ours = tiny.run(*fit, *toy, clip(1.0), root="toy")
    plain = tiny.run(*fit, clip(0.5), root="plain")
    assert ["build", *2 * ["scale_gradients", "clip_gradients"]] == toy_strategy.CALLED
    metrics = [read_metrics(run)[["train/loss", "val/loss"]] for run in (ours, plain)]
    assert_frame_equal(*metrics, check_exact=True)


def test_a_frozen_model_is_prepared_by_the_strategy(tiny: Tiny, toy: list[str]) -> None:
    lm = ["--model.lm.architecture=null"]
    base = "package:lit_entrodrop/model/tiny_base"
    lm += [f"--model.lm.pretrained={base}", f"--model.lm.tokenizer={base}"]
    reference = "--model.regularizers+=tests.helpers.plugins.ExcessLoss"
    tiny.run("fit", "--trainer.max_steps=1", *toy, *lm, reference)
    assert toy_strategy.CALLED[:3] == ["build", "build", "prepare_frozen"]


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ("--model.regularizers+=tests.helpers.plugins.MeanTeacher", "a regularizer that compares"),
        ("--model.average.kind=ema", "model.average"),
    ],
)
def test_an_average_is_refused_where_the_strategy_does_not_support_it(
    user: str, named: str, tiny: Tiny, toy: list[str]
) -> None:
    with pytest.raises(SystemExit, match=f"for {named}.*got ToyStrategy, whose optimizer does"):
        tiny.run("fit", *toy, user)


def test_strategies_of_lightning_get_the_defaults() -> None:
    for strategy in (SingleDeviceStrategy(), DDPStrategy()):
        assert type(hooks_of(strategy)) is StrategyHooks
