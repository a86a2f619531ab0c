"""FSDP2: parameters, gradients and optimizer states, sharded block by block."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
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
from lit_entrodrop.runs.checkpoints.lazy_weights import shapes
from lit_entrodrop.runs.checkpoints.reading import (
    check_same_model,
    check_same_strategy,
    read_all,
    read_checkpoint,
)
from lit_entrodrop.runtime.lightning_compat import set_device
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.averaging.settings import check_same_average
from lit_entrodrop.training.optim import (
    check_same_optimizer,
    clip_gradient_norm,
    initialize_state,
    one_mesh_per_group,
)
from lit_entrodrop.training.strategies.base import StrategyHooks, refuse_quantized
from lit_entrodrop.training.strategies.sharded_init import ShardedInit, scatter_weights
from lit_entrodrop.training.strategies.tensor_parallel import check_adapters, parallelize


class FSDP2Strategy(ModelParallelStrategy, StrategyHooks):
    """Shard parameters, gradients and optimizer states over all devices, block by block (FSDP2).

    A device gathers one transformer block at a time, and the layers around the blocks: embedding,
    last norm and head. Gradients are summed over devices in fp32. Only the first rank loads the
    whole model, in host memory.

    With ``replicas`` above 1, the devices are split into that many equal parts. Each part has a
    copy of the model, sharded over the part; parts exchange only gradients (HSDP).

    With ``tensor_parallel_size`` above 1, each block is sharded twice. Its layers are split within
    groups of that many neighboring devices, which compute the same batch; each split is sharded
    over the groups. The plan in Transformers decides how; a model without a plan is refused. Every
    device of a group computes embedding and head, whose weights are sharded over all devices.
    Dropout within a split layer draws the same mask on each device of a group.

    Args:
        tensor_parallel_size: Number of devices that compute one batch together; best within one
            machine.
        replicas: Number of copies of the model, for example one per machine.
        cpu_offload: Whether shards, gradients and optimizer states stay in host memory, where the
            optimizer steps. The weights of a block are copied to the device when needed.
        save_distributed_checkpoint: Whether a checkpoint is a folder of shards, which takes no
            extra memory; otherwise the first rank gathers one file in host memory.
        process_group_backend: Backend of torch.distributed; by default the one of the device.
        timeout: Seconds that a rank waits for others.
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
        self.save_distributed_checkpoint = save_distributed_checkpoint

    def setup_environment(self) -> None:
        """Arrange the devices of all nodes in replicas, shards and tensor-parallel groups."""
        devices, tensor = self.num_nodes * self.num_processes, self.tensor_parallel_size
        shards = devices // (self.replicas * tensor)
        if self.replicas * shards * tensor != devices:
            raise ValueError(
                "trainer.devices: expected a multiple of tensor_parallel_size x replicas, "
                f"{tensor} x {self.replicas}, over all machines, got {devices}: change one of them"
            )
        if (tensor > 1 or self.cpu_offload) and self.precision_plugin.precision == "16-mixed":
            raise ValueError(
                "trainer.precision: expected bf16-mixed or 32-true with tensor_parallel_size > 1 "
                "or cpu_offload, got 16-mixed, whose loss scaling needs all gradients on the same "
                "devices: set bf16-mixed"
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

    def check_lm(self, lm: LMConfig) -> None:
        """Refuse 4-bit weights, and adapters that cannot be split or would lose precision."""
        refuse_quantized(lm, type(self).__name__)
        precision = str(self.precision_plugin.precision)
        if precision in AUTOCAST_DTYPES and lm.lora is not None and lm.lora.dora:
            raise ValueError(
                f"model.lm.lora.dora: expected false with {precision} under FSDP2, which rounds "
                "the norms of DoRA: set trainer.precision to 32-true, or trainer.strategy to ddp"
            )
        if self.tensor_parallel_size > 1:
            check_adapters(lm)

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build a model on the first rank, and return this rank's shard of it."""
        init = ShardedInit(lm, build_whole, self.root_device)
        sharded, whole = init.causal_lm, init.whole
        self.shard(sharded)
        sharded.to_empty(device="cpu" if self.cpu_offload else self.root_device)
        scatter_weights(sharded, whole.state_dict() if whole else {})
        init.copy_buffers()
        _move_buffers(sharded, self.root_device)
        sharded.device = self.root_device
        return sharded

    def prepare_frozen(self, causal_lm: CausalLM, device: torch.device) -> CausalLM:
        """Return the model; its shards are on their device, or offloaded."""
        return causal_lm

    def clip_gradients(
        self, module: L.LightningModule, optimizer: Optimizer, value: float, algorithm: str | None
    ) -> None:
        """Clip gradients, by a norm over all meshes, which Lightning cannot compute."""
        if value > 0 and algorithm != "value":
            clip_gradient_norm(optimizer, value)
        else:
            super().clip_gradients(module, optimizer, value, algorithm)

    def model_to_device(self) -> None:
        """Move the model, or with CPU offloading all but its parameters."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.lightning_module is not None, "the trainer connects it"
        for module in self.lightning_module.modules():
            if isinstance(module, Metric):
                module.to(self.root_device)
        _move_buffers(self.lightning_module, self.root_device)
        set_device(self.lightning_module, self.root_device)

    def shard(self, causal_lm: CausalLM) -> None:
        """Make each transformer block a unit of sharding, and the layers around them another."""
        half = AUTOCAST_DTYPES.get(str(self.precision_plugin.precision))
        # Memory that a device reads must be pinned; a machine without a device cannot pin.
        pinned = self.root_device.type != "cpu"
        options: dict[str, Any] = {
            "offload_policy": CPUOffloadPolicy(pinned) if self.cpu_offload else OffloadPolicy(),
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
            ),
        }
        if self.tensor_parallel_size > 1:
            parallelize(causal_lm.unwrapped, self._mesh["tensor"])
        # A dimension of size 1 would make this HSDP.
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
        """Step each device mesh separately, as PyTorch's kernels cannot mix them."""
        with one_mesh_per_group(optimizer):
            return super().optimizer_step(optimizer, closure, model, **kwargs)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, after checking that it is of this model and contains no code.

        A run resumes from what this strategy wrote; a checkpoint of any strategy can be evaluated.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        if not self._is_fitting:
            return read_checkpoint(path)
        check_same_strategy(type(self).__name__, read_all(path), path)
        module = self.lightning_module
        assert module is not None, "the trainer connects it"
        if path.is_dir():
            checkpoint = read_checkpoint(path)
            check_same_model(shapes(module.state_dict()), shapes(checkpoint["state_dict"]))
            check_same_optimizer(checkpoint, module)
            averaging = getattr(module, "averaging", None)
            check_same_average(checkpoint, averaging and averaging.settings)
        initialize_state(self.optimizers[0], module)
        return super().load_checkpoint(path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Scatter the weights of a checkpoint to evaluate; a fit has loaded its shards."""
        if not self._is_fitting:
            assert self.lightning_module is not None, "the trainer connects it"
            scatter_weights(self.lightning_module, checkpoint["state_dict"])

    @property
    def _is_fitting(self) -> bool:
        assert self.lightning_module is not None, "the trainer connects it"
        return self.lightning_module.trainer.state.fn == TrainerFn.FITTING

    def _get_process_group_backend(self) -> str:
        backend: str = super()._get_process_group_backend()
        if not self.cpu_offload or ":" in backend or self.root_device.type == "cpu":
            return backend
        # Gradients in host memory are reduced there.
        return f"cpu:gloo,{self.root_device.type}:{backend}"


StrategyRegistry.register("fsdp2", FSDP2Strategy)
StrategyRegistry.register("fsdp2_tp", FSDP2Strategy, tensor_parallel_size=2)


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
