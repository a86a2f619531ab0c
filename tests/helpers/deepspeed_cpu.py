"""DeepSpeed on the CPU, as only tests run it."""

import os

import torch
from lightning.pytorch.strategies import DDPStrategy

from lit_entrodrop.training.strategies import DeepSpeedStrategy

os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed

# Each rank would else import it after it was forked, and Inductor with it, for seconds.
import deepspeed.runtime.zero.muon.muon_optimizer

# It would have to be compiled.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class DeepSpeedOnCPU(DeepSpeedStrategy):
    """DeepSpeed without Lightning's demand for CUDA."""

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        self._init_deepspeed_distributed()
