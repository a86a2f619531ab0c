"""Tensor parallelism: the layers of each transformer block, split within a group of devices."""

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

from lit_entrodrop.model.config import LMConfig

GATHERED = partial(ColwiseParallel, output_layouts=Replicate())
SPLIT = partial(RowwiseParallel, input_layouts=Replicate())
# By their names in the plans of Transformers, older and newer.
STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": GATHERED,
    "colwise_rep": GATHERED,
    "rowwise_split_input": SPLIT,
    "rowwise_rep": SPLIT,
    # A norm per head: each device has some of the heads, and so a part of the gradient. The
    # dimension of heads is never the last, over which the norm is computed.
    "replicated_with_grad_allreduce": partial(
        SequenceParallel, sequence_dim=1, use_local_output=True
    ),
}
# The part of a LoRA adapter that is split like its layer; the other part is whole.
SHARED_ADAPTER = {"colwise": "lora_B", "rowwise": "lora_A"}


def parallelize(hf_model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Split the layers of each transformer block by the plan of Transformers.

    The layers around the blocks, such as embedding and head, stay whole: each device of the group
    computes them on the same hidden states.

    Args:
        hf_model: Model on the meta device, without a peft wrapper.
        mesh: Mesh of the group, of one dimension.

    Raises:
        ValueError: If the model has no plan, an unsupported plan, or cannot be split evenly.
    """
    styles = check_plan(hf_model, mesh.size())
    modules = dict(hf_model.named_modules())
    # PyTorch would make frozen norms trainable.
    trained = {name: p.requires_grad for name, p in hf_model.named_parameters()}
    for name, style in styles.items():
        for layer in _layers(modules[name], style):
            parallelize_module(layer, mesh, STYLES[style]())
    for name, parameter in hf_model.named_parameters():
        parameter.requires_grad_(trained[name])


def check_plan(hf_model: PreTrainedModel, size: int) -> dict[str, str]:
    """Return the styles of the modules of a model without a peft wrapper, by name.

    Raises:
        ValueError: If the model has no plan, an unsupported plan, or cannot be split evenly.
    """
    styles = dict(_styles(hf_model))
    check_size(hf_model, styles, size)
    return styles


def check_size(hf_model: PreTrainedModel, styles: dict[str, str], size: int) -> None:
    """Refuse a number of devices that does not divide heads and layers evenly."""
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
            f"tensor_parallel_size: expected a divisor of the {heads} attention heads, "
            f"{key_value_heads} key-value heads and layer widths of {config.model_type}, got "
            f"{size}: set {' or '.join(possible)}"
        )


def check_adapters(lm: LMConfig) -> None:
    """Refuse adapters that are not a product of two split matrices."""
    if lm.lora is not None and lm.lora.dora:
        raise ValueError(
            "model.lm.lora.dora: expected false with tensor_parallel_size > 1, because the norm of "
            "a row spans all devices of a group: set tensor_parallel_size to 1, or dora to false"
        )


def _styles(hf_model: PreTrainedModel) -> Iterator[tuple[str, str]]:
    # Names without a layer number are around the blocks.
    plan = {name: style for name, style in (hf_model.tp_plan or {}).items() if ".*." in name}
    model_type = hf_model.config.model_type
    if not plan:
        raise ValueError(
            "tensor_parallel_size: expected a model with a tensor-parallel plan in Transformers, "
            f"got {model_type} without one: set tensor_parallel_size to 1"
        )
    modules = dict(hf_model.named_modules())
    for name in (*modules, *dict(hf_model.named_parameters())):
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is None:
            continue
        if style not in STYLES or name not in modules:
            raise ValueError(
                "tensor_parallel_size: expected a model of linear layers and norms, got "
                f"{model_type}, whose {name} has the unsupported style {style!r}: "
                "set tensor_parallel_size to 1"
            )
        yield name, style


def _layers(module: Any, style: str) -> list[nn.Module]:
    if isinstance(getattr(module, "modules_to_save", None), nn.ModuleDict):
        raise ValueError(
            "model.lm.lora.modules_to_save: expected modules outside of the transformer blocks "
            "with tensor_parallel_size > 1, which splits those within: set it to 1"
        )
    if not hasattr(module, "base_layer"):
        return [module]
    adapter = getattr(module, SHARED_ADAPTER[style]).values() if style in SHARED_ADAPTER else ()
    return [module.base_layer, *adapter]
