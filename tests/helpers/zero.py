"""Checkpoints that DeepSpeed itself writes, on two CPU ranks."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tests.helpers.deepspeed_cpu  # noqa: F401  as early as may be, so that ranks fork with it
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.optim import parameter_groups
from tests.helpers.processes import run_ranks


class Module(nn.Module):
    """What of a LitCausalLM DeepSpeed gets to see."""

    def __init__(self, lm: LMConfig) -> None:
        super().__init__()
        self.causal_lm = build_causal_lm(lm)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        nll: Tensor = self.causal_lm(input_ids, input_ids, places, torch.zeros_like(places)).nll
        return nll.mean()


def write_zero(folder: Path, lm: LMConfig, stage: int, steps: int = 2, **state: Any) -> Path:
    """Train some steps under ZeRO and save a checkpoint as Lightning does.

    Args:
        folder: to make; ``expected.pt`` in it holds the whole weights, as the live engine has them.
        lm: of the model.
        stage: of ZeRO, which computes in bf16 if adapters alone are trained.
        steps: of the optimizer.
        state: what Lightning saves besides.
    """
    folder.mkdir()
    run_ranks(_write, folder, folder, lm, stage, steps, {"lm": asdict(lm), **state})
    return folder


def _write(
    rank: int, folder: Path, lm: LMConfig, stage: int, steps: int, state: dict[str, Any]
) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(rank))
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo", dist_init_required=False)
    torch.manual_seed(0)
    module = Module(lm)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        # Several vectors a rank under ZeRO-3.
        "zero_optimization": {"stage": stage, "sub_group_size": 5000},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": lm.lora is not None},
    }
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=torch.optim.AdamW(parameter_groups(module), lr=0.01), config=config
    )
    for step in range(steps):
        engine.backward(engine(torch.arange(2 + step, 18 + step)[None]))
        engine.step()
    state["hf_config"] = module.causal_lm.unwrapped.config.to_dict()
    engine.save_checkpoint(folder, client_state=state, tag="checkpoint")
    with deepspeed.zero.GatheredParameters(list(module.parameters()), enabled=stage == 3):
        expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            expected[name] = safe_get_full_fp32_param(parameter).clone()
    if rank == 0:
        torch.save(expected, folder / "expected.pt")
