"""Internals of Transformers that this project uses (checked on transformers 5.17 and 5.23)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils.chat_template_utils import render_jinja_template
from transformers.utils.logging import set_tqdm_hook

from lit_entrodrop.runtime.progress import track


def attention_implementation(config: PretrainedConfig) -> str:
    """Return the attention implementation, which has no public attribute."""
    name: str = config._attn_implementation
    return name


def checkpoint_activations(hf_model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass; Transformers 5.23 renamed the method."""
    name = "activation_checkpointing_enable"
    enable = getattr(hf_model, name, None) or hf_model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def transformers_progress() -> Iterator[None]:
    """Show the progress of Transformers, such as "Loading weights", with :func:`track`."""

    def show(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = len(args) == 1 and kwargs.keys() == {"desc"}
        return track(args[0], kwargs["desc"]) if plain else factory(*args, **kwargs)

    gguf: Any = modeling_gguf_pytorch_utils
    hook, gguf_bar = set_tqdm_hook(show), gguf.tqdm
    # The GGUF reader does not call the hook.
    gguf.tqdm = lambda items, desc: track(items, desc.rstrip("."))
    try:
        yield
    finally:
        set_tqdm_hook(hook)
        gguf.tqdm = gguf_bar


def render_with_generation_spans(
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    chat_template: str,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[str, list[tuple[int, int]]]:
    """Render a chat, and return the characters between each pair of `{% generation %}` tags.

    `apply_chat_template` returns only a mask of tokens. It leaves out a part of a character that
    is several tokens, and every turn after one whose first character has no token.
    """
    render: Any = render_jinja_template
    texts, spans = render(
        [messages],
        tools=tools,
        chat_template=chat_template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return texts[0], spans[0]


def reason_of(error: Exception, model: str) -> str:
    """Return the message of an error, without the list of all causal LMs.

    >>> reason_of(ValueError("Unrecognized configuration class <class 'A'> for ..."), "a_model")
    'a_model is no causal LM: name another model'
    """
    if "Unrecognized configuration class" in str(error):
        return f"{model} is no causal LM: name another model"
    return str(error)
