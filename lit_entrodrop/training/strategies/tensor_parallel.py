"""Tensor parallelism: the layers of each transformer block shared out within a group of devices."""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from transformers import PreTrainedModel

GATHERED = partial(ColwiseParallel, output_layouts=Replicate())
SPLIT = partial(RowwiseParallel, input_layouts=Replicate())
# What the plans of Transformers call them, in older versions and newer ones.
STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": GATHERED,
    "colwise_rep": GATHERED,
    "rowwise_split_input": SPLIT,
    "rowwise_rep": SPLIT,
    # A norm of single heads: a device has some of them, and so a part of the gradient. Whichever
    # dimension counts heads, it is not the last, over which the norm goes.
    "replicated_with_grad_allreduce": partial(
        SequenceParallel, sequence_dim=1, use_local_output=True
    ),
}
# The part of a LoRA adapter that is shared out like the layer beside it; the other is whole.
SHARED_ADAPTER = {"colwise": "lora_B", "rowwise": "lora_A"}


def parallelize(hf_model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Share out the layers of each transformer block, as the plan of Transformers says.

    What stands around the blocks, embedding and head among it, is left whole: each device of the
    group computes it, on the same hidden states.

    Args:
        hf_model: the model, on the meta device, without peft around it.
        mesh: the group, of one dimension.

    Raises:
        ValueError: if the model has no plan or one that is not supported, or cannot be shared out
            evenly.
    """
    styles = check_plan(hf_model, mesh.size())
    modules = dict(hf_model.named_modules())
    # PyTorch would train norms that are frozen.
    trained = {name: p.requires_grad for name, p in hf_model.named_parameters()}
    for name, style in styles.items():
        for layer in _layers(modules[name], style):
            parallelize_module(layer, mesh, STYLES[style]())
    for name, parameter in hf_model.named_parameters():
        parameter.requires_grad_(trained[name])


def check_plan(hf_model: PreTrainedModel, size: int) -> dict[str, str]:
    """Return the styles of a model's modules, by name.

    Args:
        hf_model: the model, without peft around it.
        size: devices that are to share it out.

    Raises:
        ValueError: if the model has no plan or one that is not supported, or cannot be shared out
            evenly.
    """
    styles = dict(_styles(hf_model))
    check_size(hf_model, styles, size)
    return styles


def check_size(hf_model: PreTrainedModel, styles: dict[str, str], size: int) -> None:
    """Refuse a number of devices that cannot share out heads and layers evenly.

    Args:
        hf_model: the model.
        styles: those of its modules, by name.
        size: how many devices.

    Raises:
        ValueError: saying which numbers are possible.
    """
    config = hf_model.config.get_text_config()
    heads = config.num_attention_heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    widths = {
        getattr(hf_model.get_submodule(name), "out_features" if "col" in style else "in_features")
        for name, style in styles.items()
        if "wise" in style
    }
    common = math.gcd(heads, key_value_heads, *widths)
    if common % size:
        possible = [str(number) for number in range(1, common + 1) if common % number == 0]
        raise ValueError(
            f"tensor_parallel_size: expected what divides the {heads} attention heads, "
            f"{key_value_heads} key-value heads and layers of {config.model_type}, got {size}: "
            f"take {' or '.join(possible)}"
        )


def _styles(hf_model: PreTrainedModel) -> Iterator[tuple[str, str]]:
    """Yield names of modules and their styles."""
    # Without a layer's number, it stands around the blocks.
    plan = {name: style for name, style in (hf_model.tp_plan or {}).items() if ".*." in name}
    model_type = hf_model.config.model_type
    if not plan:
        raise ValueError(
            "tensor_parallel_size: expected a model for which Transformers has a plan of tensor "
            f"parallelism, got {model_type}, for which it has none: set tensor_parallel_size to 1"
        )
    modules = dict(hf_model.named_modules())
    for name in (*modules, *dict(hf_model.named_parameters())):
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is None:
            continue
        if style not in STYLES or name not in modules:
            raise ValueError(
                "tensor_parallel_size: expected a model of linear layers and norms, got "
                f"{model_type}, whose {name} is shared out as {style!r}, which is not supported: "
                "set tensor_parallel_size to 1"
            )
        yield name, style


def _layers(module: Any, style: str) -> list[nn.Module]:
    if not hasattr(module, "base_layer"):
        return [module]
    adapter = getattr(module, SHARED_ADAPTER[style]).values() if style in SHARED_ADAPTER else ()
    return [module.base_layer, *adapter]
