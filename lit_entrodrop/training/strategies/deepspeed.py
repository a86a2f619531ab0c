"""DeepSpeed ZeRO: optimizer states, gradients and, in stage 3, parameters shared out."""

import contextlib
import io
import logging
import tempfile
from argparse import Namespace
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
from lit_entrodrop.runs.checkpoints.reading import (
    check_same_model,
    check_same_strategy,
    read_checkpoint,
    shapes,
)
from lit_entrodrop.runs.checkpoints.zero import TAG
from lit_entrodrop.runs.layout import RESHARDED
from lit_entrodrop.training.strategies.dealing import Twin

OPTIMIZER_SHARDS = f"{TAG}/*zero_pp_rank_*_optim_states.pt"


class Precision(DeepSpeedPrecision):
    """DeepSpeed's precision, which casts the model but not the entropies of a batch."""

    def __init__(self, precision: Any) -> None:
        if precision == "16-mixed":
            raise ValueError(
                "trainer.precision: expected bf16-mixed or 32-true under DeepSpeed, whose scaling "
                f"of fp16 losses is taken by the number of tokens, got {precision}: take one of "
                "them, or fsdp2"
            )
        super().__init__(precision)

    def convert_input(self, data: Any) -> Any:
        """Leave a batch as it is."""
        return data


class DeepSpeedStrategy(LightningDeepSpeedStrategy):
    """Share out optimizer states and gradients, and in stage 3 parameters, by DeepSpeed's ZeRO.

    With ``trainer.precision: bf16-mixed`` DeepSpeed holds the weights in bf16 and a master copy of
    them in fp32; gradients are summed over devices and micro-batches in fp32.

    Args:
        stage: 2 shares out optimizer states and gradients; 3 parameters too.
        offload: keep optimizer states, and in stage 3 parameters, in host memory, where the
            optimizer then computes.
        config: further settings of DeepSpeed, as in its JSON file; they win over ours.
        process_group_backend: of torch.distributed; by default what fits the device.
        timeout: seconds that a rank waits for others.
    """

    def __init__(
        self,
        stage: Literal[2, 3] = 3,
        offload: bool = False,
        config: dict[str, Any] | None = None,
        process_group_backend: str | None = None,
        timeout: float = 1800.0,
    ) -> None:
        _drop_noise()
        super().__init__(
            config=_merged(_default_config(stage, offload), config or {}),
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout),
        )

    @property
    def handles_gradient_accumulation(self) -> bool:
        """False: Lightning says when to step, at the end of an epoch too, as with any strategy."""
        return False

    @property
    def precision_plugin(self) -> Any:
        """What casts; under DeepSpeed that is the engine."""
        return self._precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Any) -> None:
        self._precision_plugin = plugin and Precision(plugin.precision)

    def setup(self, trainer: L.Trainer) -> None:
        """Let the engine step after each backward pass outside :meth:`block_backward_sync`."""
        super().setup(trainer)
        self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Tell the engine that it does not step after this micro-batch."""
        self.deepspeed_engine.set_gradient_accumulation_boundary(False)
        yield
        self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the backward pass; Lightning has divided the loss by the number of micro-batches."""
        return super().backward(closure_loss, *args, scale_wrt_gas=False, **kwargs)

    def scale_gradients(self, factor: Tensor) -> None:
        """Multiply the gradients of the coming step, before they are clipped.

        DeepSpeed holds them in buffers of its own, which it divides by its loss scale.
        """
        self._zero_optimizer.loss_scale = 1 / factor

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """Step, after which the next backward pass must not be scaled; none is skipped silently."""
        result = super().optimizer_step(*args, **kwargs)
        self._zero_optimizer.loss_scale = 1.0
        if not self.deepspeed_engine.was_step_applied():
            raise FloatingPointError(
                "gradient: expected finite numbers, got others, at which DeepSpeed would skip the "
                "step: lower the learning rate, or lengthen the warm-up"
            )
        return result

    @contextlib.contextmanager
    def model_sharded_context(self) -> Generator[None, None, None]:
        """Leave the sharding to :meth:`build`, which knows where the weights come from."""
        yield

    @property
    def _zero_optimizer(self) -> Any:
        return self.optimizers[0]

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build a model; in stage 3 on the first rank only, which deals it out block by block.

        Args:
            lm: of the model.
            build_whole: builds it whole.

        Returns:
            The model, of which each rank holds its shard in stage 3.
        """
        import deepspeed

        self._init_config_if_needed()
        if not self.zero_stage_3:
            return build_whole()
        half = AUTOCAST_DTYPES.get(str(self.precision_plugin.precision))
        twin = Twin(lm, build_whole, self.root_device, half)
        for unit in twin.units():
            deepspeed.zero.Init(module=unit, config_dict_or_path=self.config)
        causal_lm = twin.causal_lm
        for parameter in causal_lm.unwrapped.get_output_embeddings().parameters():
            # The fused head reads it outside of the module that owns it.
            deepspeed.zero.register_external_parameter(causal_lm, parameter)
        return causal_lm

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, once it is known to be of this model and no code.

        A run resumes from a folder of shards, which are dealt out anew if they are of another
        number of devices. A checkpoint of any strategy can be evaluated.

        Raises:
            ValueError: if the checkpoint is none of ours, or not of this model or engine.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        checkpoint = read_checkpoint(path)
        assert self.lightning_module is not None, "it is connected before"
        if self.lightning_module.trainer.state.fn != TrainerFn.FITTING:
            return checkpoint
        check_same_strategy(type(self).__name__, checkpoint, path)
        check_same_model(shapes(self._parameters_and_buffers()), shapes(checkpoint["state_dict"]))
        with self._resharded(path) as shards:
            return super().load_checkpoint(shards, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Deal out the weights of a checkpoint, unless the engine has loaded them."""
        import deepspeed

        for name, value in checkpoint.get("state_dict", {}).items():
            tensor = self._parameters_and_buffers()[name]
            is_dealt_out = hasattr(tensor, "ds_id")
            with deepspeed.zero.GatheredParameters(tensor, 0, enabled=is_dealt_out):
                if self.is_global_zero or not is_dealt_out:
                    tensor.data.copy_(value)

    def _parameters_and_buffers(self) -> dict[str, Tensor]:
        assert self.lightning_module is not None, "it is connected before"
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
                _to_universal(folder, resharded) if self.is_global_zero else ""
            )
            if failure:
                raise ValueError(
                    f"ckpt_path: {folder} was written by another number of devices, and DeepSpeed "
                    f"cannot deal it out anew ({failure}), which it can for the states of Adam: "
                    "resume on as many devices as wrote it"
                )
            self.deepspeed_engine._config.load_universal_checkpoint = True
            try:
                yield resharded
            finally:
                self.deepspeed_engine._config.load_universal_checkpoint = False
            self._part_step_counts()
            self.barrier()

    def _part_step_counts(self) -> None:
        # DeepSpeed gives all parts of the optimizer one tensor, which each of them then counts up.
        for part, state in self._zero_optimizer.optimizer.state.items():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(part.device, copy=True)

    def prepare_frozen(self, causal_lm: CausalLM) -> None:
        """Let a model that is not trained gather its parameters where they are dealt out."""
        import deepspeed

        if self.zero_stage_3:
            config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
            deepspeed.initialize(model=causal_lm, config=config)


StrategyRegistry.register("deepspeed_zero2", DeepSpeedStrategy, stage=2)
StrategyRegistry.register("deepspeed_zero3", DeepSpeedStrategy, stage=3)
StrategyRegistry.register("deepspeed_zero3_offload", DeepSpeedStrategy, stage=3, offload=True)


def _drop_noise() -> None:
    # Any optimizer may be named, and no backward hook has to see what `Outputs` holds.
    groundless = ("untested optimizer", "unknown inputs or outputs type")
    logger = logging.getLogger("DeepSpeed")
    if not logger.filters:
        logger.addFilter(lambda record: not any(w in record.getMessage() for w in groundless))


def _default_config(stage: int, offload: bool) -> dict[str, Any]:
    to_host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "zero_optimization": {
            "stage": stage,
            **({"offload_optimizer": to_host} if offload else {}),
            **({"offload_param": to_host} if offload and stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own would have to be compiled, and is not the one that a config names.
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32", "keep_in_fp32_modules": ["*"]},
        # For its own report of throughput alone.
        "train_micro_batch_size_per_gpu": 1,
    }


def _merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings, of which those that are given win."""
    merged = {**defaults, **given}
    for name in defaults.keys() & given.keys():
        if isinstance(defaults[name], dict) and isinstance(given[name], dict):
            merged[name] = _merged(defaults[name], given[name])
    return merged


def _to_universal(folder: Path, output: Path) -> str:
    """Rewrite the shards of one number of devices so that any number can load them.

    Returns:
        What went wrong, if anything did.
    """
    from deepspeed.checkpoint import ds_to_universal

    arguments = Namespace(
        input_folder=str(folder / TAG),
        output_folder=str(output / TAG),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    try:
        # It talks of each of its steps.
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()):
            ds_to_universal.main(arguments)
    except Exception as error:  # it raises whatever its dictionaries and files do
        return repr(error)
    return ""
