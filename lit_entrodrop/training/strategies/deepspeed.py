"""DeepSpeed ZeRO: optimizer states, gradients and, in stage 3, parameters, sharded over devices."""

import contextlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.plugins.precision.deepspeed import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy as LightningDeepSpeedStrategy
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.runs.checkpoints.lazy_weights import shapes
from lit_entrodrop.runs.checkpoints.reading import (
    check_same_model,
    check_same_strategy,
    read_checkpoint,
)
from lit_entrodrop.runs.checkpoints.zero import TAG
from lit_entrodrop.runs.layout import RESHARDED
from lit_entrodrop.runtime.deepspeed_compat import (
    drop_unfounded_warnings,
    loading_universal,
    separate_step_counts,
    set_gradient_divisor,
    to_universal,
)
from lit_entrodrop.runtime.nested import merged
from lit_entrodrop.training.optim import check_same_optimizer
from lit_entrodrop.training.strategies.base import StrategyHooks, refuse_quantized
from lit_entrodrop.training.strategies.sharded_init import ShardedInit

OPTIMIZER_SHARDS = f"{TAG}/*zero_pp_rank_*_optim_states.pt"


class BatchPreservingPrecision(DeepSpeedPrecision):
    """DeepSpeed's precision, which casts the model but not the entropies of a batch."""

    def __init__(self, precision: Any) -> None:
        if precision == "16-mixed":
            raise ValueError(
                "trainer.precision: expected bf16-mixed or 32-true under DeepSpeed, whose loss "
                "scale is used to divide gradients by the number of tokens, got "
                f"{precision}: set one of them, or use fsdp2"
            )
        super().__init__(precision)

    def convert_input(self, data: Any) -> Any:
        """Return a batch unchanged."""
        return data


class DeepSpeedStrategy(LightningDeepSpeedStrategy, StrategyHooks):
    """Shard optimizer states and gradients, and in stage 3 parameters, by DeepSpeed's ZeRO.

    With ``trainer.precision: bf16-mixed`` DeepSpeed stores weights in bf16, and master weights in
    fp32. Gradients are summed over devices and micro-batches in fp32.

    Args:
        stage: Stage of ZeRO: 2 shards optimizer states and gradients; 3 parameters too.
        offload: Whether optimizer states, and in stage 3 parameters, stay in host memory, where the
            optimizer then computes.
        config: Further settings of DeepSpeed, as in its JSON file; they override the defaults.
        process_group_backend: Backend of torch.distributed; by default the one of the device.
        timeout: Seconds that a rank waits for others.
    """

    steps_parameters = False

    def __init__(
        self,
        stage: Literal[2, 3] = 3,
        offload: bool = False,
        config: dict[str, Any] | None = None,
        process_group_backend: str | None = None,
        timeout: float = 1800.0,
    ) -> None:
        drop_unfounded_warnings()
        super().__init__(
            config=merged(_default_config(stage, offload), config or {}),
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout),
        )

    @property
    def handles_gradient_accumulation(self) -> bool:
        """False: Lightning decides when to step, also at the end of an epoch."""
        return False

    @property
    def precision_plugin(self) -> Any:
        """The precision plugin."""
        return self._precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        self._precision_plugin = plugin and BatchPreservingPrecision(plugin.precision)

    def setup(self, trainer: L.Trainer) -> None:
        """Let the engine step after each backward pass outside :meth:`block_backward_sync`."""
        super().setup(trainer)
        # Before 0.19.8, DeepSpeed fails where no optimizer is, in an evaluation.
        if self.deepspeed_engine.optimizer is not None:
            self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Let the engine accumulate: it does not step after this micro-batch."""
        self.deepspeed_engine.set_gradient_accumulation_boundary(False)
        yield
        self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the backward pass; Lightning has divided the loss by the number of micro-batches."""
        return super().backward(closure_loss, *args, scale_wrt_gas=False, **kwargs)

    def scale_gradients(self, optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
        """Multiply the gradients of the coming step, before they are clipped."""
        set_gradient_divisor(self._zero_optimizer, 1 / factor)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """Step, and raise if DeepSpeed skipped the step because a gradient is not finite."""
        result = super().optimizer_step(*args, **kwargs)
        set_gradient_divisor(self._zero_optimizer, 1.0)
        if not self.deepspeed_engine.was_step_applied():
            raise FloatingPointError(
                "gradient: expected finite numbers, got NaN or infinity, for which DeepSpeed skips "
                "the step: lower the learning rate, or lengthen the warm-up"
            )
        return result

    @contextlib.contextmanager
    def model_sharded_context(self) -> Generator[None, None, None]:
        """Do nothing: :meth:`build` shards the model."""
        yield

    @property
    def _zero_optimizer(self) -> Any:
        return self.optimizers[0]

    def check_lm(self, lm: LMConfig) -> None:
        """Refuse 4-bit weights, and DoRA, which reads base weights that stage 3 does not gather."""
        refuse_quantized(lm, type(self).__name__)
        if lm.lora is not None and lm.lora.dora:
            raise ValueError(
                "model.lm.lora.dora: expected false under DeepSpeed, which rounds its norms "
                "or does not gather its weights: set trainer.strategy to ddp"
            )

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build a model; in stage 3 on the first rank, to return this rank's shard of it."""
        import deepspeed

        self._init_config_if_needed()
        if not self.zero_stage_3:
            return build_whole()
        half = AUTOCAST_DTYPES.get(str(self.precision_plugin.precision))
        init = ShardedInit(lm, build_whole, self.root_device, half)
        for unit in init.units():
            deepspeed.zero.Init(module=unit, config_dict_or_path=self.config)
        causal_lm = init.causal_lm
        head = causal_lm.unwrapped.get_output_embeddings()
        for parameter in head.parameters():
            # The fused head reads them outside of the module that owns them.
            deepspeed.zero.register_external_parameter(causal_lm, parameter)
            deepspeed.zero.register_external_parameter(head, parameter)
        return causal_lm

    def prepare_frozen(self, causal_lm: CausalLM, device: torch.device) -> CausalLM:
        """Return the model, which in stage 3 gathers its sharded parameters in a forward pass."""
        import deepspeed

        if self.zero_stage_3:
            config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
            deepspeed.initialize(model=causal_lm, config=config)
        return causal_lm.to(device)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, after checking that it is of this model and contains no code.

        A run resumes from a folder of shards, which are resharded if another number of devices
        wrote them. A checkpoint of any strategy can be evaluated.

        Raises:
            ValueError: If `fit` did not write the checkpoint, or model or strategy differ.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        checkpoint = read_checkpoint(path)
        assert self.lightning_module is not None, "the trainer connects it"
        if self.lightning_module.trainer.state.fn != TrainerFn.FITTING:
            return checkpoint
        check_same_strategy(type(self).__name__, checkpoint, path)
        check_same_model(shapes(self._parameters_and_buffers()), shapes(checkpoint["state_dict"]))
        check_same_optimizer(checkpoint, self.lightning_module)
        with self._resharded(path) as shards:
            return super().load_checkpoint(shards, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the weights of a checkpoint, unless the engine has loaded them."""
        import deepspeed

        for name, value in checkpoint.get("state_dict", {}).items():
            tensor = self._parameters_and_buffers()[name]
            is_sharded = hasattr(tensor, "ds_id")
            with deepspeed.zero.GatheredParameters(tensor, 0, enabled=is_sharded):
                if self.is_global_zero or not is_sharded:
                    tensor.data.copy_(value)

    def _parameters_and_buffers(self) -> dict[str, Tensor]:
        assert self.lightning_module is not None, "the trainer connects it"
        tensors: dict[str, Tensor] = self.lightning_module.state_dict(keep_vars=True)
        return tensors

    @contextlib.contextmanager
    def _resharded(self, folder: Path) -> Iterator[Path]:
        if len(list(folder.glob(OPTIMIZER_SHARDS))) == self.world_size:
            yield folder
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=RESHARDED) as temporary:
            resharded = Path(self.broadcast(temporary))
            failure = self.broadcast(
                to_universal(folder / TAG, resharded / TAG) if self.is_global_zero else ""
            )
            if failure:
                raise ValueError(
                    f"ckpt_path: {folder} was written by another number of devices, and DeepSpeed "
                    f"can reshard only the states of Adam ({failure}): resume on as many devices "
                    "as wrote it"
                )
            with loading_universal(self.deepspeed_engine):
                yield resharded
            separate_step_counts(self._zero_optimizer)
            self.barrier()


StrategyRegistry.register("deepspeed_zero2", DeepSpeedStrategy, stage=2)
StrategyRegistry.register("deepspeed_zero3", DeepSpeedStrategy, stage=3)
StrategyRegistry.register("deepspeed_zero3_offload", DeepSpeedStrategy, stage=3, offload=True)


def _default_config(stage: int, offload: bool) -> dict[str, Any]:
    to_host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "zero_optimization": {
            "stage": stage,
            **({"offload_optimizer": to_host} if offload else {}),
            **({"offload_param": to_host} if offload and stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own optimizer needs a compiler, and is not the one of the config.
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32", "keep_in_fp32_modules": ["*"]},
        # Used by its report of throughput only.
        "train_micro_batch_size_per_gpu": 1,
    }
