"""Dropout inside any Hugging Face causal LM, by its own settings or by forward hooks."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_entrodrop.model.probing import eval_mode, model_arguments, probe_ids
from lit_entrodrop.model.transformers_compat import attention_implementation
from regularizers.passes import seed_default_generators

# Names of the settings of each part in different architectures.
SETTINGS = {
    "attention": ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob"),
    "hidden": (
        "hidden_dropout",
        "hidden_dropout_prob",
        "resid_pdrop",
        "resid_dropout",
        "residual_dropout",
        "dropout",
    ),
    "embedding": ("embd_pdrop", "embed_dropout", "embedding_dropout"),
}
# Values that no other attribute of a model has.
MARKS = {"attention": 0.1357, "hidden": 0.2468, "embedding": 0.3579}
# Norms that some blocks apply to the output of a branch before they add it.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)

REMEDY = "set it to 0, or use another part of lm.dropout"

DropoutAttribute = tuple[Any, str]  # object and name of its attribute


@dataclass
class DropoutConfig:
    """Dropout inside the model, instead of the dropout in its own configuration.

    Args:
        attention: Dropout probability of the attention weights.
        hidden: Dropout probability of the output of each attention and MLP, before it is added to
            the residual stream.
        embedding: Dropout probability of the token embeddings.
    """

    attention: float = 0.0
    hidden: float = 0.0
    embedding: float = 0.0

    def __post_init__(self) -> None:
        """Check that all probabilities are in [0, 1)."""
        for part, probability in asdict(self).items():
            if not 0 <= probability < 1:
                raise ValueError(
                    f"lm.dropout.{part}: expected a probability in [0, 1), got {probability}: "
                    "0.1 is usual"
                )


class DropoutHook:
    """Forward hook that applies dropout to the output of a module, in train mode.

    >>> layer = nn.Identity()
    >>> _ = layer.register_forward_hook(DropoutHook(1.0))
    >>> layer(torch.ones(2)), layer.eval()(torch.ones(2))
    (tensor([0., 0.]), tensor([1., 1.]))
    """

    def __init__(self, probability: float = 0.0) -> None:
        self.probability = probability

    def __call__(self, module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Return the output, with dropout on its first tensor."""
        if isinstance(output, tuple):
            return (self(module, None, output[0]), *output[1:])
        return nn.functional.dropout(output, self.probability, module.training)


def set_dropout(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], dropout: DropoutConfig
) -> None:
    """Set the dropout of a model in place, by its own settings if it has them, else by hooks.

    The configuration of the model does not change, so an exported model has the dropout of the
    original model. The model must not be wrapped by peft yet.

    Raises:
        ValueError: If the model does not support dropout of a part, or dropout has no effect there.
            The effect is not checked for a model without weights.
    """
    asked = {part: value for part, value in asdict(dropout).items() if value}
    own = _own_places(hf_model, blocks)
    _set([place for places in own.values() for place in places], 0.0)
    for part in asked:
        hooked = part != "attention" and (part == "embedding" or not own[part])
        places = _add_hooks(hf_model, blocks, part) if hooked else own[part]
        _require_place(hf_model, part, places)
        if hf_model.device.type != "meta":
            _require_effect(hf_model, part, places)
            if hooked and part == "hidden":
                _require_residual(hf_model, blocks, places)
        own[part] = places
    for part, probability in asked.items():
        _set(own[part], probability)


def _own_places(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module]
) -> dict[str, list[DropoutAttribute]]:
    """Return the module attributes in which the architecture keeps its dropout probabilities.

    Several modules may store one setting, under different names, or none may. A model without
    weights, built from marked settings, shows where. Dropout before the blocks is embedding
    dropout, whatever the name of its setting.
    """
    config = copy.deepcopy(hf_model.config)
    for part, names in SETTINGS.items():
        for name in names:
            if hasattr(config, name):
                setattr(config, name, MARKS[part])
    with torch.device("meta"):
        marked = AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", trust_remote_code=False
        )
    within = {module for block in blocks for module in block.modules()}
    places: dict[str, list[DropoutAttribute]] = {part: [] for part in MARKS}
    for path, twin in marked.named_modules():
        module = hf_model.get_submodule(path)
        for name, value in vars(twin).items():
            for part, mark in MARKS.items():
                if isinstance(value, float) and value == mark:
                    places[part if module in within else "embedding"].append((module, name))
    return places


def _add_hooks(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], part: str
) -> list[DropoutAttribute]:
    modules = [branch for block in blocks for branch in _branches(block)]
    if part == "embedding":
        modules = [hf_model.get_input_embeddings()]
    hooks = [DropoutHook() for _ in modules]
    for module, hook in zip(modules, hooks, strict=True):
        module.register_forward_hook(hook)
    return [(hook, "probability") for hook in hooks]


def _branches(block: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs a block adds to the residual stream."""
    children = dict(block.named_children())
    for names in POST_NORMS:
        if all(name in children for name in names):
            return [children[name] for name in names]
    return [each for each in children.values() if any(p.dim() > 1 for p in each.parameters())]


def _set(places: Sequence[DropoutAttribute], probability: float) -> None:
    for holder, name in places:
        setattr(holder, name, probability)


def _require_place(
    hf_model: PreTrainedModel, part: str, places: Sequence[DropoutAttribute]
) -> None:
    if not places:
        raise ValueError(
            f"lm.dropout.{part}: expected a model that supports it, got "
            f"{hf_model.config.model_type}, which does not: {REMEDY}"
        )
    if part == "attention" and attention_implementation(hf_model.config) == "flex_attention":
        raise ValueError(
            "lm.dropout.attention: expected an attention implementation with dropout, got "
            "flex_attention, which has none: set lm.attention to sdpa"
        )


def _require_effect(
    hf_model: PreTrainedModel, part: str, places: Sequence[DropoutAttribute]
) -> None:
    """Check on eight tokens that dropout of a part changes logits in train mode only."""
    before = [_logits(hf_model, training) for training in (True, False)]
    _set(places, 0.5)
    after = [_logits(hf_model, training) for training in (True, False)]
    _set(places, 0.0)
    training, evaluation = (torch.equal(*pair) for pair in zip(before, after, strict=True))
    if training or not evaluation:
        raise ValueError(
            f"lm.dropout.{part}: expected it to change logits in train mode only, got "
            f"{hf_model.config.model_type}, where it does not: {REMEDY}"
        )


def _require_residual(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], places: Sequence[DropoutAttribute]
) -> None:
    """Check that blocks return their input if all outputs of their branches are dropped."""
    same = []

    def compare(_block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        received = args[0] if args else kwargs["hidden_states"]
        same.append(torch.equal(received, output[0] if isinstance(output, tuple) else output))

    handles = [block.register_forward_hook(compare, with_kwargs=True) for block in blocks]
    _set(places, 1.0)
    _logits(hf_model, training=True)
    _set(places, 0.0)
    for handle in handles:
        handle.remove()
    if not all(same):
        raise ValueError(
            "lm.dropout.hidden: expected blocks that add the outputs of their modules to their "
            f"input, got {hf_model.config.model_type}, whose blocks do not: {REMEDY}"
        )


def _logits(hf_model: PreTrainedModel, training: bool) -> Tensor:
    """Return the logits of eight tokens, with the same random numbers each time."""
    arguments = model_arguments(hf_model, probe_ids(hf_model, 8))
    with eval_mode(hf_model), torch.random.fork_rng(devices=[]):
        seed_default_generators(0, hf_model.device)
        hf_model.train(training)
        logits: Tensor = hf_model(**arguments).logits
        return logits
