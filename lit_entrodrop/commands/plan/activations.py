"""Memory and arithmetic of one training step, found by running it on tensors without values."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lit_entrodrop.commands.plan.demands import NONE, Demands
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.model.head.torch_kernel import sized_for

Part = Literal["model", "gradients", "trunk", "head"]


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query.shape, key.shape, value.shape)
    return flops


def _attention_backward_flops(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    flops: int = sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)
    return flops


# PyTorch counts the fused attention of GPUs alone.
FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


@dataclass(frozen=True)
class DryRun:
    """What one training step of a model takes on one device.

    Args:
        activation_bytes: peak of what lives beside parameters, their gradients and the optimizer.
        head_bytes: share of that which the loss head has allocated.
        step_bytes: peak of activations and gradients together, where Lightning lets the gradients
            of the step before live until the forward pass is over, and new ones then come while
            activations go. At most ``activation_bytes`` plus all gradients, as much as that if
            gradients stay from step to step.
        flops_per_token: of forward and backward, with what is computed again.
    """

    activation_bytes: int
    head_bytes: int
    step_bytes: int
    flops_per_token: float


def dry_run(
    lm: LMConfig,
    batch_size: int,
    block_size: int,
    precision: str,
    on_gpu: bool = True,
    demands: Demands = NONE,
) -> DryRun:
    """Run a training step without memory: shapes alone, none of the values.

    Args:
        lm: of the model; pretrained weights are not loaded.
        batch_size: rows of a micro-batch on a device, B.
        block_size: tokens in a row, T.
        precision: as in ``trainer.precision``.
        on_gpu: whether the head takes its chunks as on a GPU, and attention drops its weights
            without holding them.
        demands: of the regularizers.

    Returns:
        The peaks and the floating-point operations.

    Raises:
        ValueError: if the model cannot be had.
    """
    if on_gpu and lm.dropout:
        lm = replace(lm, dropout=replace(lm.dropout, attention=0.0))
    causal_lm = build_on_meta(replace(lm, compile=False))
    if hasattr(causal_lm.unwrapped, "set_experts_implementation"):
        # The grouped kernels of experts look at values.
        causal_lm.unwrapped.set_experts_implementation("eager")
    device = torch.device("cuda" if on_gpu else "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), sized_for(device):
        causal_lm.to_empty(device="cpu")
        # Each of two tied weights has become one of its own.
        causal_lm.unwrapped.tie_weights()
        step = measure_step(causal_lm, packed_batch(batch_size, block_size), precision, demands)
    return DryRun(
        step.peak,
        step.peak_of_head,
        step.peak_with_gradients,
        step.flops / (batch_size * block_size),
    )


def packed_batch(batch_size: int, block_size: int) -> Batch:
    """Return a batch whose rows hold two documents each, as packed text does."""
    ids = torch.zeros(batch_size, block_size, dtype=torch.long)
    places = torch.arange(block_size).expand(batch_size, -1)
    second = places >= block_size // 2
    return {
        "input_ids": ids,
        "labels": ids.clone(),
        "position_ids": places - second * (block_size // 2),
        "document_ids": second.long(),
    }


def measure_step(
    causal_lm: CausalLM, batch: Batch, precision: str, demands: Demands = NONE
) -> "StepMeter":
    """Run the passes of a training step, and measure them.

    Args:
        causal_lm: in train mode, on the CPU, its tensors real or fake; its gradients are replaced.
        batch: as :meth:`LitCausalLM.training_step` takes it.
        precision: as in ``trainer.precision``.
        demands: of the regularizers.
    """
    trainable = [weight for weight in causal_lm.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.grad = torch.zeros_like(weight)
    meter = StepMeter(causal_lm)
    with meter, meter.hooks():
        with autocast(precision):
            loss = _loss(causal_lm, batch, demands)
        meter.part = "trunk"
        causal_lm.zero_grad()
        loss.backward()
    return meter


def _loss(causal_lm: CausalLM, batch: Batch, demands: Demands) -> Tensor:
    demands.before(causal_lm, batch)
    token_weight = torch.ones(batch["labels"].shape)
    outputs = causal_lm(
        batch["input_ids"],
        batch["labels"],
        batch["position_ids"],
        batch["document_ids"],
        token_weight=None if demands.reads_outputs else token_weight,
        required=demands.required,
    )
    loss: Tensor | None = outputs.weighted_loss
    if loss is None:
        loss = (token_weight * outputs.nll).sum()
    for other in demands.after(causal_lm, batch):
        loss = loss + (token_weight * other.nll).sum()
        if demands.required.divergence and (other.predictions or other.logits is not None):
            loss = loss + outputs.kl_divergence(other).sum()
    return loss


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a precision of the trainer runs a forward pass on a CPU."""
    if precision in AUTOCAST_DTYPES:
        return torch.autocast("cpu", AUTOCAST_DTYPES[precision])
    return contextlib.nullcontext()


class StepMeter(TorchDispatchMode):
    """Counts floating-point operations, and bytes of what operations have made and still lives.

    Works on fake tensors as on real ones.

    Args:
        causal_lm: whose step is measured.
    """

    def __init__(self, causal_lm: CausalLM) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.causal_lm = causal_lm
        self.part: Part = "trunk"
        self.flops = self.peak = self.peak_of_head = self.peak_with_gradients = 0
        self.alive: dict[Part, int] = dict.fromkeys(get_args(Part), 0)
        self._known: dict[int, tuple[Part, weakref.ref[torch.UntypedStorage]]] = {}
        for tensor in (*causal_lm.parameters(), *causal_lm.buffers()):
            self._assign(tensor, "model")
            if tensor.grad is not None:
                self._assign(tensor.grad, "gradients")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it has made."""
        kwargs = kwargs or {}
        self._update_peaks()
        result = func(*args, **kwargs)
        # Not by FlopCounterMode, whose hooks on modules keep activations alive.
        if count := FLOPS.get(func.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._assign(tensor, self.part)
        # Without a mode like this one, autograd adds a gradient to another in the memory of one.
        if torch.is_grad_enabled() or func is not torch.ops.aten.add.Tensor:
            self._update_peaks()
        return result

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Notice where the head begins, and which tensors become gradients of parameters."""

        def enter_trunk(*_: object) -> None:
            self.part = "trunk"

        def leave_trunk(*_: object) -> None:
            self.part = "head"

        def note_gradient(parameter: Tensor) -> None:
            assert parameter.grad is not None, "it has just been accumulated"
            self._assign(parameter.grad, "gradients")

        trunk = self.causal_lm.unwrapped.base_model
        handles = [trunk.register_forward_pre_hook(enter_trunk)]
        handles += [trunk.register_forward_hook(leave_trunk)]
        handles += [
            parameter.register_post_accumulate_grad_hook(note_gradient)
            for parameter in self.causal_lm.parameters()
            if parameter.requires_grad
        ]
        yield
        for handle in handles:
            handle.remove()

    def _update_peaks(self) -> None:
        activations = self.alive["trunk"] + self.alive["head"]
        if activations > self.peak:
            self.peak, self.peak_of_head = activations, self.alive["head"]
        both = activations + self.alive["gradients"]
        self.peak_with_gradients = max(self.peak_with_gradients, both)

    def _assign(self, tensor: Tensor, part: Part) -> None:
        """Count the storage of a tensor to a part, and no more to the one that it was in."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()

        def forget(_: object = None) -> None:
            self.alive[self._known.pop(key)[0]] -= size

        if key in self._known:
            forget()
        self._known[key] = (part, weakref.ref(storage, forget))
        self.alive[part] += size
