"""Memory and FLOPS of one training step, measured in a dry run on fake tensors."""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lit_entrodrop.commands.plan.estimates.extra_passes import NO_EXTRA_PASSES, ExtraPasses
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.model.head.torch_kernel import sized_for
from lit_entrodrop.training.optim import ParameterRule, freeze
from regularizers import Outputs

Part = Literal["model", "gradients", "trunk", "head"]


_aten = torch.ops.aten
# PyTorch only counts the fused attention of GPUs.
FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}


@dataclass(frozen=True)
class DryRun:
    """Memory and FLOPS of one training step on one device.

    Args:
        activation_bytes: Peak of the memory beyond parameters, their gradients and the optimizer.
        head_bytes: Part of that peak that the loss head has allocated.
        step_bytes: Peak of activations and gradients together. Lightning frees the gradients of the
            previous step after the forward pass; new ones come while activations are freed.
        flops_per_token: Operations that the device executes for forward and backward, with
            recomputation and with the half of attention that a causal mask hides.
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
    extra_passes: ExtraPasses = NO_EXTRA_PASSES,
    rules: Sequence[ParameterRule] = (),
) -> DryRun:
    """Run a training step on fake tensors, which have shapes but no values.

    Args:
        lm: Config of the model; pretrained weights are not loaded.
        batch_size: Number of rows in a micro-batch of a device, B.
        block_size: Number of tokens in a row, T.
        precision: Precision, as in ``trainer.precision``.
        on_gpu: Whether head chunks have the sizes of a GPU, and attention dropout is free.
        extra_passes: Passes that the regularizers add.
        rules: Rules of ``model.groups``, which may freeze parameters.

    Raises:
        ValueError: If the model cannot be built.
    """
    if on_gpu and lm.dropout:
        lm = replace(lm, dropout=replace(lm.dropout, attention=0.0))
    causal_lm = build_on_meta(replace(lm, compile=False))
    freeze(causal_lm, rules)
    if hasattr(causal_lm.unwrapped, "set_experts_implementation"):
        # Grouped kernels of experts read values.
        causal_lm.unwrapped.set_experts_implementation("eager")
    device = torch.device("cuda" if on_gpu else "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), sized_for(device):
        _allocate(causal_lm)
        step = measure_step(
            causal_lm, packed_batch(batch_size, block_size), precision, extra_passes
        )
    return DryRun(
        step.peak,
        step.peak_of_head,
        step.peak_with_gradients,
        step.flops / (batch_size * block_size),
    )


def _allocate(module: nn.Module) -> None:
    """Move a module from the meta device to the CPU; tied weights stay tied."""
    allocated: dict[Tensor, Tensor] = {}
    for part in module.modules():
        own = chain(part.named_parameters(recurse=False), part.named_buffers(recurse=False))
        for name, tensor in list(own):
            if tensor not in allocated:
                empty = torch.empty_like(tensor, device="cpu")
                is_parameter = isinstance(tensor, nn.Parameter)
                allocated[tensor] = (
                    nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                )
            setattr(part, name, allocated[tensor])


def packed_batch(batch_size: int, block_size: int) -> Batch:
    """Return a batch with two documents in each row, as in packed text."""
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
    causal_lm: CausalLM, batch: Batch, precision: str, extra_passes: ExtraPasses = NO_EXTRA_PASSES
) -> "StepMeter":
    """Run and measure the passes of a training step on the CPU; gradients are replaced."""
    trainable = [weight for weight in causal_lm.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.grad = torch.zeros_like(weight)
    meter = StepMeter(causal_lm)
    dtype = AUTOCAST_DTYPES.get(precision)
    with meter, meter.hooks():
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = _loss(causal_lm, batch, extra_passes)
        meter.part = "trunk"
        causal_lm.zero_grad()
        loss.backward()
    return meter


def _loss(causal_lm: CausalLM, batch: Batch, extra_passes: ExtraPasses) -> Tensor:
    if extra_passes.required.entropy == "online":
        score_clean(causal_lm, batch)
    token_weight = torch.ones(batch["labels"].shape)
    outputs = extra_passes.first(causal_lm, batch, token_weight)
    loss = _summed(outputs, token_weight)
    for other in extra_passes.after(causal_lm, batch, token_weight):
        loss = loss + _summed(other, token_weight)
        if extra_passes.required.divergence and (other.predictions or other.logits is not None):
            loss = loss + outputs.kl_divergence(other).sum()
    return loss


def _summed(outputs: Outputs, token_weight: Tensor) -> Tensor:
    summed = outputs.weighted_loss
    return (token_weight * outputs.nll).sum() if summed is None else summed


class StepMeter(TorchDispatchMode):
    """Counter of floating-point operations and of the bytes of live tensors, real or fake."""

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
        """Run an operation and count the tensors that it creates."""
        kwargs = kwargs or {}
        self._update_peaks()
        result = func(*args, **kwargs)
        # FlopCounterMode is no alternative: its hooks on modules keep activations alive.
        if count := FLOPS.get(func.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._assign(tensor, self.part)
        # Without a dispatch mode, autograd adds gradients in place.
        if torch.is_grad_enabled() or func is not torch.ops.aten.add.Tensor:
            self._update_peaks()
        return result

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Register hooks that detect the start of the head and the gradients of parameters."""

        def enter_trunk(*_: object) -> None:
            self.part = "trunk"

        def leave_trunk(*_: object) -> None:
            self.part = "head"

        def note_gradient(parameter: Tensor) -> None:
            assert parameter.grad is not None, "the hook follows its accumulation"
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
        """Count the storage of a tensor in a part, and no longer in its previous part."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()

        def forget(_: object = None) -> None:
            self.alive[self._known.pop(key)[0]] -= size

        if key in self._known:
            forget()
        self._known[key] = (part, weakref.ref(storage, forget))
        self.alive[part] += size
