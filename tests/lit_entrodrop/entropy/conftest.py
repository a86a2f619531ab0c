"""A noisy model, and data that a group of ranks can read without a trainer."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.loading.loaders import Batching
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from tests.helpers.tiny import LLAMA, Tiny

NOISY = {**LLAMA, "attention_dropout": 0.5}


def build(tiny: Tiny, seed: int = 0) -> CausalLM:
    torch.manual_seed(seed)
    return build_causal_lm(tiny.lm(architecture=NOISY))


class RankData(TextDataModule):
    """Data of a rank of a group, without a trainer."""

    @property
    def batching(self) -> Batching:
        if not dist.is_initialized():
            return super().batching
        size, rank = dist.get_world_size(), dist.get_rank()
        return replace(super().batching, num_replicas=size, rank=rank)


@pytest.fixture
def data(tiny: Tiny) -> TextDataModule:
    data = tiny.data()
    data.setup()
    return data
