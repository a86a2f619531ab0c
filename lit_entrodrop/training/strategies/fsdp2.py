"""FSDP2: parameters, gradients and optimizer states shared out block by block."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.optim import Optimizer
from torchmetrics import Metric

from lit_entrodrop.model.building import transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.runs.checkpoints.reading import shapes
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.optim import one_mesh_per_group
from lit_entrodrop.training.strategies.dealing import Twin, deal_out_weights
from lit_entrodrop.training.strategies.loading import ShardsOrAny
from lit_entrodrop.training.strategies.tensor_parallel import parallelize


class FSDP2Strategy(ShardsOrAny, ModelParallelStrategy):
    """Shard parameters, gradients and optimizer states over all devices, block by block (FSDP2).

    A device holds one transformer block in full at a time, and besides what stands around the
    blocks: embedding, last norm and head. Gradients are summed over devices in fp32. The first
    rank alone ever holds the whole model, in host memory, while it is loaded.

    With ``replicas`` above 1, each of so many equal parts of the devices holds a copy of the model,
    sharded over the part; parts exchange nothing but gradients (HSDP).

    With ``tensor_parallel_size`` above 1, each block is shared out twice: its layers within groups
    of so many neighbouring devices, which compute on the same batch, and each share over the
    groups. The model's own plan in Transformers says how; a model without one is refused. Embedding
    and head are computed by every device of a group, but stored and stepped in shards over all.
    Dropout within a shared layer draws the same mask on each of its devices.

    Args:
        tensor_parallel_size: devices that compute one batch together; best within one machine.
        replicas: copies of the model, such as one a machine.
        cpu_offload: keep shards, gradients and optimizer states in host memory, where the optimizer
            then steps; a block's weights come to the device when they are needed.
        save_distributed_checkpoint: write a folder of shards, which takes no memory; else one file,
            which the first rank gathers in host memory.
        process_group_backend: of torch.distributed; by default what fits the device.
        timeout: seconds that a rank waits for others.
    """

    def __init__(
        self,
        tensor_parallel_size: int = 1,
        replicas: int = 1,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        timeout: float = 1800.0,
    ) -> None:
        check_at_least(1, tensor_parallel_size=tensor_parallel_size, replicas=replicas)
        super().__init__(
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout),
        )
        self.tensor_parallel_size = tensor_parallel_size
        self.replicas = replicas
        self.cpu_offload = cpu_offload

    def setup_environment(self) -> None:
        """Arrange the devices of all nodes in replicas, shards and groups that share a batch."""
        devices, tensor = self.num_nodes * self.num_processes, self.tensor_parallel_size
        shards = devices // (self.replicas * tensor)
        if self.replicas * shards * tensor != devices:
            raise ValueError(
                "trainer.devices: expected a multiple of tensor_parallel_size x replicas, "
                f"{tensor} x {self.replicas}, over all machines, got {devices}: change one of them"
            )
        if (tensor > 1 or self.cpu_offload) and self.precision_plugin.precision == "16-mixed":
            raise ValueError(
                "trainer.precision: expected bf16-mixed or 32-true beside tensor_parallel_size > 1 "
                "or cpu_offload, got 16-mixed, for which PyTorch must find all gradients on the "
                "same devices: set bf16-mixed"
            )
        self._data_parallel_size = self.replicas * shards
        super().setup_environment()
        kind = self.root_device.type
        self._mesh = init_device_mesh(
            kind, (self.replicas, shards, tensor), mesh_dim_names=("replica", "shard", "tensor")
        )
        self._mesh_of_all = init_device_mesh(
            kind, (self.replicas, shards * tensor), mesh_dim_names=("replica", "shard")
        )

    def own_shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of all weights, by name."""
        assert self.lightning_module is not None, "it is connected before"
        return shapes(self.lightning_module.state_dict())

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build a model on the first rank and deal it out.

        Args:
            lm: of the model.
            build_whole: called on the first rank only; what it raises is raised on every rank.

        Returns:
            The model, of which each rank holds its shard.
        """
        twin = Twin(lm, build_whole, self.root_device)
        sharded, whole = twin.causal_lm, twin.whole
        self.shard(sharded)
        sharded.to_empty(device="cpu" if self.cpu_offload else self.root_device)
        deal_out_weights(sharded, whole.state_dict() if whole else {})
        twin.copy_buffers()
        _move_buffers(sharded, self.root_device)
        sharded.device = self.root_device
        return sharded

    def model_to_device(self) -> None:
        """Move the model, or all but its parameters if those stay in host memory."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.lightning_module is not None, "it is connected before"
        for module in self.lightning_module.modules():
            if isinstance(module, Metric):
                module.to(self.root_device)
        _move_buffers(self.lightning_module, self.root_device)
        _update_properties(self.lightning_module, device=self.root_device)

    def shard(self, causal_lm: CausalLM) -> None:
        """Make each transformer block a unit, and one of all that stands around them."""
        half = AUTOCAST_DTYPES.get(str(self.precision_plugin.precision))
        # Only what a device reads must be pinned; a machine without one cannot pin.
        pinned = self.root_device.type != "cpu"
        options: dict[str, Any] = {
            "offload_policy": CPUOffloadPolicy(pinned) if self.cpu_offload else OffloadPolicy(),
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
            ),
        }
        if self.tensor_parallel_size > 1:
            parallelize(causal_lm.unwrapped, self._mesh["tensor"])
        # One replica needs no dimension of its own.
        dimensions = ("replica", "shard") if self.replicas > 1 else "shard"
        around = self._mesh_of_all if self.tensor_parallel_size > 1 else self._mesh
        for block in transformer_blocks(causal_lm.hf_model):
            fully_shard(block, mesh=self._mesh[dimensions], **options)
        fully_shard(causal_lm, mesh=around[dimensions], **options)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Step each arrangement of devices by itself, as PyTorch's kernels cannot mix them."""
        with one_mesh_per_group(optimizer):
            return super().optimizer_step(optimizer, closure, model, **kwargs)

    def _get_process_group_backend(self) -> str:
        backend: str = super()._get_process_group_backend()
        if not self.cpu_offload or ":" in backend or self.root_device.type == "cpu":
            return backend
        # What is in host memory is reduced there.
        return f"cpu:gloo,{self.root_device.type}:{backend}"


StrategyRegistry.register("fsdp2", FSDP2Strategy, description=FSDP2Strategy.__doc__ or "")


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
