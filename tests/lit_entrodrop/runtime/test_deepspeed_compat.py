"""Each test fails when DeepSpeed renames or changes a private part that is used."""

import ast
import inspect
import logging
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from deepspeed.checkpoint import ds_to_universal, universal_checkpoint
from deepspeed.runtime.base_optimizer import ZeROOptimizer
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero import parameter_offload, stage3, stage_1_and_2
from deepspeed.utils import logger

import tests.helpers.deepspeed_cpu  # noqa: F401  before DeepSpeed
from lit_entrodrop.cli.noise import silence_libraries
from lit_entrodrop.runtime.deepspeed_compat import (
    UNFOUNDED_WARNINGS,
    drop_unfounded_warnings,
    loading_universal,
    separate_step_counts,
    set_gradient_divisor,
    to_universal,
)


def source(thing: object) -> str:
    return inspect.getsource(thing)


def test_the_version_is_one_that_was_checked() -> None:
    assert version("deepspeed").startswith("0.19."), "check each part, then raise the bound"


def test_unfounded_warnings_exist_and_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    written = source(DeepSpeedEngine) + source(parameter_offload)
    assert all(part in written for part in UNFOUNDED_WARNINGS)
    assert logger is logging.getLogger("DeepSpeed")
    silence_libraries()  # adds a filter of its own
    drop_unfounded_warnings()
    dropped, kept = (
        logger.makeRecord("DeepSpeed", logging.WARNING, "", 0, text, (), None)
        for text in (f"an {UNFOUNDED_WARNINGS[0]}", "another warning")
    )
    assert not logger.filter(dropped)
    assert logger.filter(kept)


@pytest.mark.parametrize(
    "optimizer", [stage_1_and_2.DeepSpeedZeroOptimizer, stage3.DeepSpeedZeroOptimizer_Stage3]
)
def test_gradients_are_divided_by_the_loss_scale(optimizer: type) -> None:
    assert issubclass(optimizer, ZeROOptimizer)
    assert isinstance(optimizer.loss_scale, property)
    bare = optimizer.__new__(optimizer)
    bare.custom_loss_scaler = False
    bare.loss_scaler = SimpleNamespace(cur_scale=1.0)
    set_gradient_divisor(bare, 4.0)
    assert bare.loss_scale == 4.0
    # `unscale_and_clip_grads` divides by it, or by it times the norm to which it clips.
    assert "combined_scale = self.loss_scale" in source(optimizer)


def test_the_engine_reads_the_universal_option_when_it_loads() -> None:
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    torch.nn.Module.__init__(engine)
    engine._config = DeepSpeedConfig.__new__(DeepSpeedConfig)
    with loading_universal(engine):
        assert engine.load_universal_checkpoint() is True
    assert engine.load_universal_checkpoint() is False
    assert "self.load_universal_checkpoint()" in source(DeepSpeedEngine.load_checkpoint)


def test_conversion_takes_the_options_that_are_given(tmp_path: Path) -> None:
    read = {
        node.attr
        for node in ast.walk(ast.parse(source(ds_to_universal)))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "args"
    }
    given: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ds_to_universal, "main", lambda options: given.update(vars(options)))
        assert to_universal(tmp_path, tmp_path / "out") == ""
    assert given.keys() == read


def test_a_failed_conversion_returns_its_error(tmp_path: Path) -> None:
    assert to_universal(tmp_path / "none", tmp_path / "out")


def test_parts_have_step_counts_of_their_own() -> None:
    # DeepSpeed sets the same tensor for all parts.
    assert 'key == "step"' in source(universal_checkpoint.load_hp_checkpoint_state)
    step, parts = torch.tensor(3.0), [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW(parts)
    optimizer.state.update({part: {"step": step} for part in parts})
    separate_step_counts(SimpleNamespace(optimizer=optimizer))
    first, second = (optimizer.state[part]["step"] for part in parts)
    first += 1
    assert (first, second) == (4.0, 3.0)
