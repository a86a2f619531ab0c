"""What is planned: a model, its batches and what regularizers demand."""

from dataclasses import dataclass, replace
from functools import cached_property

from lit_entrodrop.commands.plan.demands import NONE, Demands
from lit_entrodrop.commands.plan.states import Held
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.sizes import Sizes, sizes_of


@dataclass(frozen=True)
class Job:
    """What stays the same, however many devices there are.

    Args:
        lm: of the model.
        batch_size: rows of a micro-batch of one device, at most.
        global_batch_size: rows of an optimizer step, over all devices.
        block_size: tokens in a row.
        precision: a mixed one, or 32-true if the weights are held in half precision.
        optimizer: bytes of its state for each trainable parameter, a teacher's average among them.
        demands: of the regularizers.
        reference: of the frozen model that they compare with, if any.
    """

    lm: LMConfig
    batch_size: int
    global_batch_size: int
    block_size: int
    precision: str
    optimizer: float
    demands: Demands = NONE
    reference: LMConfig | None = None

    @property
    def held(self) -> Held:
        """In what numbers are held."""
        return Held(4 if self.lm.dtype == "float32" else 2, 2, self.optimizer)

    @cached_property
    def frozen(self) -> Sizes | None:
        """Of the reference model."""
        if self.reference is None:
            return None
        frozen = build_on_meta(replace(self.reference, compile=False)).requires_grad_(False)
        return sizes_of(frozen)
