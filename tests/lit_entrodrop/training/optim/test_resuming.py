"""A run under any optimizer, killed and resumed, ends with the bits of one that was not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import lightning as L
import pytest
import schedulefree
import torch

from lit_entrodrop.commands.verify_resume.differences import Comparison, without_root
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.training.callbacks import Checkpoints
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import LRSchedule, Muon
from tests.helpers.killing import InterruptAt, Interrupted
from tests.helpers.tiny import Tiny

STEPS = 9
LAST = Path("checkpoints", "last.ckpt")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "muon": partial(Muon, weight_decay=0.1),
    # Blocks of 256 elements; the smallest tensors have 32 bits.
    "adamw8bit": partial(bitsandbytes.optim.AdamW8bit, weight_decay=0.1, min_8bit_size=256),
    "schedule_free": partial(schedulefree.AdamWScheduleFree, weight_decay=0.1),
    "foreign": partial(torch.optim.Adafactor, weight_decay=0.1),
}


def fit(tiny: Tiny, name: str, *callbacks: L.Callback, ckpt_path: Path | None = None) -> Any:
    """Train, and return weights, optimizer and losses."""
    module: LitCausalLM = tiny.module(
        optimizer=partial(OPTIMIZERS[name], lr=0.01),
        lr_schedule=LRSchedule(warmup=2, decay="constant"),
        memorization=None,
    )
    settings: dict[str, Any] = {
        "max_epochs": -1,
        "max_steps": STEPS,
        "val_check_interval": 0.3,
        "gradient_clip_val": 0.5,
        "enable_checkpointing": bool(callbacks),
    }
    trainer = tiny.trainer(callbacks=list(callbacks), **settings)
    # Of bitsandbytes on the CPU, a step takes less than its compilation.
    with torch.compiler.set_stance("force_eager"):
        trainer.fit(module, datamodule=tiny.data(), ckpt_path=ckpt_path, weights_only=True)
    metrics, optimizer = dict(trainer.callback_metrics), trainer.optimizers[0].state_dict()
    # The model is left with the weights that the last validation, after the last step, evaluated.
    trainer.validate(module, datamodule=tiny.data(), verbose=False)
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], metrics["val/loss"])
    return module.state_dict(), optimizer, metrics


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_killed_run_ends_with_the_same_bits(name: str, tiny: Tiny) -> None:
    whole = fit(tiny, name)
    saving = Checkpoints(every_n_train_steps=5)
    with pytest.raises(Interrupted):
        fit(tiny, name, saving, InterruptAt(7))
    path = saving.folder / "step=5.ckpt"
    resumed = fit(tiny, name, ckpt_path=path)
    comparison = Comparison()
    comparison.compare(*({"weights": each[0], "optimizer": each[1]} for each in (whole, resumed)))
    assert comparison.tensors > 30
    assert not comparison.differences
    assert resumed[2] == whole[2]
    if name == "schedule_free":
        saved = torch.load(path, weights_only=True)
        [state, *_] = saved["optimizer_states"][0]["state"].values()
        [weight, *_] = saved["state_dict"].values()
        evaluated = state["training_weight"].lerp(state["z"], 1 - 1 / 0.9)
        torch.testing.assert_close(weight, evaluated)
        assert not torch.equal(weight, state["training_weight"])


def test_moments_of_torchao_are_resumed(tiny: Tiny) -> None:
    pytest.importorskip("torchao.optim", reason="needs torchao")
    optimizer = ["--model.optimizer=torchao.optim.AdamW8bit", "--model.optimizer.init_args.lr=0.01"]
    # Smaller tensors have 32 bits.
    optimizer += ["--model.optimizer.init_args.block_size=64"]
    interrupt = [
        "--trainer.callbacks+=tests.helpers.plugins.TellToEnd",
        "--trainer.callbacks.step=5",
    ]
    interrupt += ["--trainer.callbacks.rank=0"]
    with torch.compiler.set_stance("force_eager"):
        whole = tiny.run("fit", *optimizer, root="whole")
        with pytest.raises(SystemExit, match="143"):
            tiny.run("fit", *optimizer, *interrupt, root="resumed")
        resumed = tiny.run("fit", *optimizer, "--ckpt_path=last", root="resumed")
    comparison = Comparison()
    last = [without_root(read_all(run / LAST), str(run)) for run in (whole, resumed)]
    comparison.compare(*last)
    # Codes, scales and quantiles of each moment.
    assert comparison.tensors > 60
    assert not comparison.differences
