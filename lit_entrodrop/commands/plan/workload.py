"""The training that is planned: model, batches and regularizers."""

from dataclasses import dataclass, replace
from functools import cached_property

from lit_entrodrop.commands.plan.extra_passes import NO_EXTRA_PASSES, ExtraPasses
from lit_entrodrop.commands.plan.model_memory import NumberBytes
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.sizes import Sizes, sizes_of


@dataclass(frozen=True)
class Workload:
    """Training that does not depend on the number of devices.

    Args:
        lm: Config of the model.
        batch_size: Maximum number of rows in a micro-batch of one device.
        global_batch_size: Number of rows in an optimizer step, over all devices.
        block_size: Number of tokens in a row.
        precision: Precision of the trainer: a mixed one, or 32-true for weights in half precision.
        optimizer: Bytes of optimizer state per trainable parameter, including a teacher's average.
        extra_passes: Passes that the regularizers add to a step.
        reference: Config of the frozen reference model, if the regularizers require one.
    """

    lm: LMConfig
    batch_size: int
    global_batch_size: int
    block_size: int
    precision: str
    optimizer: float
    extra_passes: ExtraPasses = NO_EXTRA_PASSES
    reference: LMConfig | None = None

    @property
    def number_bytes(self) -> NumberBytes:
        """Bytes per number in storage, in computing and in the optimizer."""
        return NumberBytes(4 if self.lm.dtype == "float32" else 2, 2, self.optimizer)

    @cached_property
    def reference_sizes(self) -> Sizes | None:
        """Parameter counts of the reference model, if there is one."""
        if self.reference is None:
            return None
        reference = build_on_meta(replace(self.reference, compile=False)).requires_grad_(False)
        return sizes_of(reference)
