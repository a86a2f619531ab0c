"""Workload to plan: model, batches and regularizers."""

from dataclasses import dataclass, replace
from functools import cached_property

from lit_entrodrop.commands.plan.estimates.extra_passes import NO_EXTRA_PASSES, ExtraPasses
from lit_entrodrop.commands.plan.estimates.model_memory import FP32, NumberBytes
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.sizes import Sizes, sizes_of
from lit_entrodrop.training.optim import ParameterRule, freeze


@dataclass(frozen=True)
class Workload:
    """Settings of a training run that do not depend on the number of devices."""

    lm: LMConfig
    batch_size: int  # maximum number of rows in a micro-batch of one device
    global_batch_size: int  # rows in an optimizer step, over all devices
    block_size: int  # tokens in a row
    precision: str  # a mixed one, or 32-true for weights in half precision
    optimizer: float  # bytes per trainable parameter, including an average of the weights
    extra_passes: ExtraPasses = NO_EXTRA_PASSES
    rules: tuple[ParameterRule, ...] = ()  # `model.groups`, which may freeze parameters
    reference: LMConfig | None = None  # config of a frozen reference model
    averaged: bool = False  # whether an average of the weights is kept
    refused: frozenset[str] = frozenset()  # strategies under which the optimizer cannot train

    @property
    def number_bytes(self) -> NumberBytes:
        """Bytes per number in storage, in computing and in the optimizer."""
        stored = 4 if self.lm.dtype == "float32" else 2
        quantized = self.lm.quantize.bytes_per_weight if self.lm.quantize is not None else None
        adapters = 0 if self.lm.lora is None else FP32 - stored
        return NumberBytes(stored, 2, self.optimizer, quantized, adapters)

    def build_on_meta(self) -> CausalLM:
        """Build the trained model without weights, with the frozen parameters of the run."""
        causal_lm = build_on_meta(replace(self.lm, compile=False))
        freeze(causal_lm, self.rules)
        return causal_lm

    @cached_property
    def reference_sizes(self) -> Sizes | None:
        """Parameter counts of the reference model, if there is one."""
        if self.reference is None:
            return None
        reference = build_on_meta(replace(self.reference, compile=False)).requires_grad_(False)
        return sizes_of(reference)
