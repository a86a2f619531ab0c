"""Two and four real ranks that share out layers, against one process."""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.runs.metrics_file import read_metrics
from lit_entrodrop.training.strategies import FSDP2Strategy
from regularizers.functional import document_positions
from tests.helpers.architectures import ARCHITECTURES
from tests.helpers.processes import run_ranks, torchrun_environment
from tests.helpers.runs import assert_same_curves, exported
from tests.helpers.tiny import CONFIGS, Tiny

TENSOR_PARALLEL = ["--config", str(CONFIGS / "strategy/fsdp2_tp.yaml")]
MODEL = "--model.lm.config_overrides={num_key_value_heads: 2}"
EVERYTHING = [
    MODEL,
    "--model.regularizers+=regularizers.EntroDrop",
    "--model.lm.dropout={hidden: 0.1, embedding: 0.1}",
    "--model.regularizers+=regularizers.WaveBound",
    "--model.average={kind: ema, decay: 0.99}",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.1",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
]


def test_two_ranks_share_out_the_layers_and_resume_as_one_process_does(tiny: Tiny) -> None:
    one = tiny.run("fit", *EVERYTHING, root="one")
    two = tiny.run_ranks("fit", *EVERYTHING, *TENSOR_PARALLEL, root="two")
    assert len(read_metrics(two)["train/loss"].dropna()) >= 10
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)

    told = ["--trainer.callbacks+", "tests.helpers.plugins.TellToEnd"]
    told += ["--trainer.callbacks.rank=1", "--trainer.callbacks.step=5"]
    tiny.run_ranks("fit", *EVERYTHING, *TENSOR_PARALLEL, *told, root="again", status=143)
    shutil.copytree(tiny.folder / "again", tiny.folder / "alone", symlinks=True)
    resume = [*EVERYTHING, "--ckpt_path=last"]
    again = tiny.run_ranks("fit", *resume, *TENSOR_PARALLEL, root="again")
    for weights in ("raw", "averaged"):
        both = exported(again, weights), exported(two, weights)  # type: ignore[arg-type]
        torch.testing.assert_close(*both, atol=0, rtol=0)
    alone = tiny.run_ranks("fit", *resume, "--trainer.strategy=fsdp2", root="alone", world_size=1)
    torch.testing.assert_close(exported(alone), exported(two), atol=1e-5, rtol=1e-4)

    # Two ranks with the same data write it once.
    tiny.run("predict", MODEL, f"--ckpt_path={one}/checkpoints/last.ckpt", root="one")
    checkpoint = f"--ckpt_path={two}/checkpoints/last.ckpt"
    tiny.run_ranks("predict", MODEL, *TENSOR_PARALLEL, checkpoint, root="two")
    assert not (two / "predictions-1.parquet").exists()
    expected, actual = (pd.read_parquet(run / "predictions-0.parquet") for run in (one, two))
    pd.testing.assert_frame_equal(actual, expected, atol=1e-4)


def test_four_ranks_in_two_groups_equal_two_ranks(tiny: Tiny) -> None:
    uneven = ["--model.lm.config_overrides={num_key_value_heads: 2, intermediate_size: 34}"]
    uneven += ["--model.lm.activation_checkpointing=true"]
    two = tiny.run_ranks("fit", *EVERYTHING, *uneven, "--trainer.strategy=ddp", root="two")
    four = tiny.run_ranks("fit", *EVERYTHING, *TENSOR_PARALLEL, *uneven, root="four", world_size=4)
    assert_same_curves(four, two, 1e-5)
    torch.testing.assert_close(exported(four), exported(two), atol=1e-5, rtol=1e-4)


def describe(model_type: str, **changes: Any) -> LMConfig:
    architecture = {"model_type": model_type, **ARCHITECTURES[model_type], **changes}
    return LMConfig(pretrained=None, architecture=architecture, attention="eager")


def loss_of(causal_lm: CausalLM) -> Tensor:
    ids = torch.randint(2, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    document_ids = torch.tensor([[0] * 7 + [1] * 5, [0] + [1] * 11])
    loss: Tensor = causal_lm(ids, ids, document_positions(document_ids), document_ids).nll.sum()
    return loss


def tensor_parallel_strategy(rank: int) -> FSDP2Strategy:
    os.environ |= torchrun_environment(rank, world_size=2)
    strategy = FSDP2Strategy(tensor_parallel_size=2)
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
    strategy.connect(L.LightningModule())
    trainer.strategy.setup_environment()
    return strategy


def compare_gradients(rank: int, configs: list[LMConfig]) -> None:
    torch.set_num_threads(1)
    strategy = tensor_parallel_strategy(rank)
    for config in configs:
        torch.manual_seed(0)
        whole = build_causal_lm(config)
        for name, parameter in whole.named_parameters():
            # It would be zero, and hide the other half of an adapter.
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        shared = strategy.build(config, lambda whole=whole: whole)
        loss_of(shared).backward()
        loss_of(whole).backward()
        both = zip(whole.named_parameters(), shared.named_parameters(), strict=True)
        for (name, expected), (_, actual) in both:
            assert actual.requires_grad == expected.requires_grad, name
            if actual.requires_grad:
                gradient = actual.grad.full_tensor()
                torch.testing.assert_close(gradient, expected.grad, atol=1e-4, rtol=1e-4)


def test_gradients_of_architectures_and_adapters_equal_one_process(tmp_path: Path) -> None:
    two = {"num_key_value_heads": 2}
    configs = [describe(name, **two) for name in ("llama", "qwen3", "gemma3_text", "granite")]
    configs += [describe(name, **two) for name in ("gemma2", "cohere")]
    configs += [describe(name) for name in ("phi", "gpt_neox")]
    lora = LoRAConfig(rank=2)
    configs += [replace(config, lora=lora) for config in configs[1:3]]
    run_ranks(compare_gradients, tmp_path, configs)


MIXTRAL = {"model_type": "mixtral", **ARCHITECTURES["llama"], "num_local_experts": 2}
REFUSED = [
    (
        describe("gpt2"),
        "with a tensor-parallel plan .*, got gpt2 without one: set tensor_parallel_size to 1",
    ),
    (describe("llama"), "the 2 attention heads, 1 key-value heads .* got 2: set 1$"),
    (describe("phi", intermediate_size=7), "and layer widths of phi, got 2: set 1$"),
    (
        LMConfig(pretrained=None, architecture=MIXTRAL),
        "mixtral, whose .*experts.* 'moe_tp_experts'",
    ),
]


def refuse(rank: int) -> None:
    strategy = tensor_parallel_strategy(rank)
    for config, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            strategy.build(config, partial(build_causal_lm, config))


def test_models_that_cannot_be_shared_out_are_refused(tmp_path: Path) -> None:
    run_ranks(refuse, tmp_path)
