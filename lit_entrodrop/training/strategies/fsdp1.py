"""FSDP1: the sharding that PyTorch had before FSDP2, for those who still need it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.precision import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy as LightningFSDPStrategy
from lightning.pytorch.strategies import StrategyRegistry
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp._common_utils import FSDP_WRAPPED_MODULE
from torch.distributed.fsdp.wrap import CustomPolicy

from lit_entrodrop.model.building import transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.runs.checkpoints.reading import shapes
from lit_entrodrop.training.strategies.dealing import Twin
from lit_entrodrop.training.strategies.loading import ShardsOrAny


class Precision(FSDPPrecision):
    """FSDP1's precision, which clips by the norm over all shards."""

    root: FullyShardedDataParallel

    def clip_grad_by_norm(self, optimizer: torch.optim.Optimizer, clip_val: float) -> None:
        """Clip the norm of all gradients, whichever rank holds them."""
        self.root.clip_grad_norm_(clip_val)


class FSDPStrategy(ShardsOrAny, LightningFSDPStrategy):
    """Shard parameters, gradients and optimizer states over all devices, block by block (FSDP1).

    Prefer ``fsdp2``. As there, gradients are summed over devices in fp32, and the first rank alone
    ever holds the whole model, in host memory, while it is loaded.

    Args:
        process_group_backend: of torch.distributed; by default what fits the device.
        timeout: seconds that a rank waits for others.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: float = 1800.0,
    ) -> None:
        super().__init__(
            state_dict_type="sharded",
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout),
        )

    @property
    def precision_plugin(self) -> Precision:
        """What casts and clips."""
        return cast(Precision, self._precision_plugin or Precision("32-true"))

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        self._precision_plugin = plugin and Precision(plugin.precision)

    def setup(self, trainer: L.Trainer) -> None:
        """Tell the precision plugin whose gradients it clips."""
        super().setup(trainer)
        self.precision_plugin.root = cast(Any, trainer.lightning_module).causal_lm

    def own_shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of all weights, by name."""
        whole = cast(Any, self.lightning_module).causal_lm.whole_shapes
        return {f"causal_lm.{name}": shape for name, shape in whole.items()}

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build a model on the first rank and deal it out.

        Args:
            lm: of the model.
            build_whole: called on the first rank only; what it raises is raised on every rank.

        Returns:
            The model, of which each rank holds its shard.
        """
        if self.world_size == 1 and lm.lora is not None:
            raise ValueError(
                "trainer.strategy: expected fsdp2 for lm.lora on one device, got fsdp, which "
                "cannot keep frozen weights there: take fsdp2"
            )
        twin = Twin(lm, build_whole, self.root_device)
        whole = shapes(twin.causal_lm.state_dict())
        blocks = transformer_blocks(twin.causal_lm.hf_model)
        half = AUTOCAST_DTYPES.get(str(self.precision_plugin.precision))
        sharded = FullyShardedDataParallel(
            twin.causal_lm,
            auto_wrap_policy=CustomPolicy(lambda module: module in blocks),
            mixed_precision=MixedPrecision(param_dtype=half, reduce_dtype=torch.float32),
            device_id=self.root_device,
            param_init_fn=twin.fill,
            use_orig_params=True,
        )
        for name, parameter in sharded.named_parameters():
            # What is left of its own shape is flat.
            cast(Any, parameter).whole_shape = whole[name.replace(f"{FSDP_WRAPPED_MODULE}.", "")]
        cast(Any, sharded).whole_shapes = whole
        return cast(CausalLM, sharded)  # it passes all names on


StrategyRegistry.register(
    "fsdp", FSDPStrategy, override=True, description=FSDPStrategy.__doc__ or ""
)
