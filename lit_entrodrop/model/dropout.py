"""Dropout inside any Hugging Face causal LM, by its own settings or by forward hooks."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_entrodrop.model.probing import eval_mode, model_arguments, probe_ids
from lit_entrodrop.runtime.seeding import seed_default_generators

# What architectures call the settings of each part.
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
# Values that nothing else of a model has.
MARKS = {"attention": 0.1357, "hidden": 0.2468, "embedding": 0.3579}
# Of blocks that norm what a sub-block returns before they add it.
POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)

REMEDY = "set it to 0, or take another part of lm.dropout"

Place = tuple[Any, str]  # an object, and the name under which it keeps its probability


@dataclass
class DropoutConfig:
    """Dropout inside the model, in place of all that its own configuration says.

    Args:
        attention: probability for attention weights.
        hidden: probability for what each attention and each MLP adds to the residual stream.
        embedding: probability for the embeddings of the tokens.
    """

    attention: float = 0.0
    hidden: float = 0.0
    embedding: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability below 1."""
        for part, probability in asdict(self).items():
            if not 0 <= probability < 1:
                raise ValueError(
                    f"lm.dropout.{part}: expected a probability in [0, 1), got {probability}: "
                    "0.1 is usual"
                )


class Drop:
    """Forward hook that drops elements of what a module returns, in train mode.

    Args:
        probability: of an element.

    >>> layer = nn.Identity()
    >>> _ = layer.register_forward_hook(Drop(1.0))
    >>> layer(torch.ones(2)), layer.eval()(torch.ones(2))
    (tensor([0., 0.]), tensor([1., 1.]))
    """

    def __init__(self, probability: float = 0.0) -> None:
        self.probability = probability

    def __call__(self, module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Return the output, of which the first tensor has lost elements."""
        if isinstance(output, tuple):
            return (self(module, None, output[0]), *output[1:])
        return nn.functional.dropout(output, self.probability, module.training)


def set_dropout(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], dropout: DropoutConfig
) -> None:
    """Give a model dropout: where its architecture has it, and else by forward hooks.

    The configuration of the model stays as it is, so that an exported model has the dropout of the
    one that was fine-tuned, and none from here.

    Args:
        hf_model: the model, without peft around it; it is changed.
        blocks: its transformer blocks.
        dropout: of each part.

    Raises:
        ValueError: if the model has no place for a part, or dropout has no effect there; without
            weights it is not tried out.
    """
    asked = {part: value for part, value in asdict(dropout).items() if value}
    own = _own_places(hf_model, blocks)
    _set([place for places in own.values() for place in places], 0.0)
    for part in asked:
        hooked = part != "attention" and (part == "embedding" or not own[part])
        places = _hook(_hooked_modules(hf_model, blocks, part)) if hooked else own[part]
        _require_place(hf_model, part, places)
        if hf_model.device.type != "meta":
            _require_effect(hf_model, part, places)
            if hooked and part == "hidden":
                _require_residual(hf_model, blocks, places)
        own[part] = places
    for part, probability in asked.items():
        _set(own[part], probability)


def _own_places(hf_model: PreTrainedModel, blocks: Sequence[nn.Module]) -> dict[str, list[Place]]:
    """Return where the architecture keeps its own probabilities.

    A setting may be read by several modules, under names of their own, or by none: a model without
    weights that is built with the marks shows where they arrive. What acts before the blocks is
    dropout of the embeddings, whatever the setting is called.
    """
    config = copy.deepcopy(hf_model.config)
    for part, names in SETTINGS.items():
        for name in names:
            if hasattr(config, name):
                setattr(config, name, MARKS[part])
    with torch.device("meta"):
        marked = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    within = {module for block in blocks for module in block.modules()}
    places: dict[str, list[Place]] = {part: [] for part in MARKS}
    for path, twin in marked.named_modules():
        module = hf_model.get_submodule(path)
        for name, value in vars(twin).items():
            for part, mark in MARKS.items():
                if isinstance(value, float) and value == mark:
                    places[part if module in within else "embedding"].append((module, name))
    return places


def _hooked_modules(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], part: str
) -> list[nn.Module]:
    if part == "embedding":
        return [hf_model.get_input_embeddings()]
    return [branch for block in blocks for branch in _branches(block)]


def _branches(block: nn.Module) -> list[nn.Module]:
    """Return the modules whose results a block adds to the residual stream."""
    children = dict(block.named_children())
    for names in POST_NORMS:
        if all(name in children for name in names):
            return [children[name] for name in names]
    return [each for each in children.values() if any(p.dim() > 1 for p in each.parameters())]


def _hook(modules: Sequence[nn.Module]) -> list[Place]:
    places: list[Place] = []
    for module in modules:
        drop = Drop()
        module.register_forward_hook(drop)
        places.append((drop, "probability"))
    return places


def _set(places: Sequence[Place], probability: float) -> None:
    for holder, name in places:
        setattr(holder, name, probability)


def _require_place(hf_model: PreTrainedModel, part: str, places: Sequence[Place]) -> None:
    if not places:
        raise ValueError(
            f"lm.dropout.{part}: expected a model that has a place for it, got "
            f"{hf_model.config.model_type}, which has none: {REMEDY}"
        )
    if part == "attention" and hf_model.config._attn_implementation == "flex_attention":
        raise ValueError(
            "lm.dropout.attention: expected an attention that can drop weights, got "
            "flex_attention, which cannot: set lm.attention to sdpa"
        )


def _require_effect(hf_model: PreTrainedModel, part: str, places: Sequence[Place]) -> None:
    """Try a part alone on eight tokens: it must change logits in train mode, and there alone."""
    before = [_logits(hf_model, training) for training in (True, False)]
    _set(places, 0.5)
    after = [_logits(hf_model, training) for training in (True, False)]
    _set(places, 0.0)
    training, evaluation = (torch.equal(*pair) for pair in zip(before, after, strict=True))
    if training or not evaluation:
        raise ValueError(
            f"lm.dropout.{part}: expected a model whose logits it changes in training alone, got "
            f"{hf_model.config.model_type}, in which it does not: {REMEDY}"
        )


def _require_residual(
    hf_model: PreTrainedModel, blocks: Sequence[nn.Module], places: Sequence[Place]
) -> None:
    """Drop all that blocks add: they must hand on what they receive, and nothing else."""
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
            "lm.dropout.hidden: expected blocks that add what their modules return to their input, "
            f"got those of {hf_model.config.model_type}, which do not: {REMEDY}"
        )


def _logits(hf_model: PreTrainedModel, training: bool) -> Tensor:
    """Return the logits of eight tokens, with the same random numbers each time."""
    ids = probe_ids(hf_model, 8)
    positions = torch.arange(8, device=ids.device)[None]
    with eval_mode(hf_model), torch.random.fork_rng(devices=[]):
        seed_default_generators(0, hf_model.device)
        hf_model.train(training)
        logits: Tensor = hf_model(**model_arguments(hf_model, ids, positions)).logits
        return logits
