"""Modelfile of Ollama: the file of the weights, the chat template and settings of sampling."""

from transformers import GenerationConfig, PreTrainedTokenizerBase

from lit_entrodrop.commands.export.gguf_format.go_template import GoTemplate, go_template
from lit_entrodrop.commands.export.gguf_format.vocabulary import adds_bos

# From this version on, Ollama renders the Jinja template in the GGUF file.
NATIVE_TEMPLATES = "0.30.0"
PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


def modelfile(
    weights: str, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, stops: list[int]
) -> str:
    """Return the text of a Modelfile, for ``ollama create NAME -f Modelfile``.

    Args:
        weights: Name of the GGUF file beside it.
        tokenizer: Tokenizer with the chat template, if any.
        generation: Generation config; what it sets is written.
        stops: Tokens at which generation stops.
    """
    lines = [f"FROM ./{weights}", *_chat_lines(tokenizer)]
    for name, parameter in PARAMETERS.items():
        if (value := getattr(generation, name, None)) is not None:
            lines.append(f"PARAMETER {parameter} {value}")
    lines += [f'PARAMETER stop "{token}"' for token in tokenizer.convert_ids_to_tokens(stops)]
    return "\n".join(lines) + "\n"


def _chat_lines(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if not tokenizer.chat_template:
        template: GoTemplate | None = GoTemplate("{{ .Prompt }}")
    else:
        template = go_template(tokenizer, adds_bos(tokenizer))
    if template is None:
        return [
            "# The chat template is in the GGUF file. It has more than text around each message,",
            "# so it has no equivalent TEMPLATE.",
            f"REQUIRES {NATIVE_TEMPLATES}",
        ]
    system = [f'SYSTEM """{template.system}"""'] if template.system else []
    return [f'TEMPLATE """{template.text}"""', *system]
