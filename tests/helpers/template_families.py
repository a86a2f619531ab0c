"""Tokenizers of model families, with chat templates written in the manner of each.

The templates have `{% generation %}` tags, which `make_family` removes unless they are asked for.
"""

import re
from functools import cache

from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from tests.helpers.tokenizer_habits import make_tokenizer

_ANSWER = "{% generation %}{{ text + END }}{% endgeneration %}{{ GAP }}"
_TURNS = (
    "{% for m in messages %}{% set text = m.content | trim %}{{ START + m.role + MIDDLE }}"
    "{% if m.role == 'assistant' %}" + _ANSWER + "{% else %}{{ text + END + GAP }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ START + 'assistant' + MIDDLE }}{% endif %}"
)


def _turns(start: str, middle: str, end: str, gap: str) -> str:
    marks = {"START": start, "MIDDLE": middle, "END": end, "GAP": gap}
    return re.sub("|".join(marks), lambda mark: repr(marks[mark[0]]), _TURNS)


CHATML = _turns("<|im_start|>", "\n", "<|im_end|>", "\n")
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Testy.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
LLAMA3 = "{{ bos_token }}" + _turns(
    "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", ""
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
) + _turns("<start_of_turn>", "\n", "<end_of_turn>", "\n").replace(
    "m.role + ", "('model' if m.role == 'assistant' else m.role) + "
).replace("'assistant' + '\\n'", "'model' + '\\n'")
# The system prompt is in the first question; the tokenizer writes a space before a text.
LLAMA2 = (
    "{% set system = '' %}{% if messages[0].role == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + m.content + ' ' + eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
)
# Reasoning is in the answer to the last question alone, and is empty if there is none.
QWEN3 = (
    "{% set last = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
) + CHATML.replace(
    "{% set text = m.content | trim %}",
    "{% set text = m.content.split('</think>')[-1].strip() %}{% set thought = "
    "m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in m.content %}",
).replace(
    "{% generation %}",
    "{% generation %}{% if loop.index0 > last.user %}"
    "{{ '<think>\n' + (thought or '') + '\n</think>\n\n' }}{% endif %}",
)

FAMILIES = {
    "chatml": (CHATML, None, "<|im_end|>", ["<|im_start|>"]),
    "default_system": (DEFAULT_SYSTEM, None, "<|im_end|>", ["<|im_start|>"]),
    "llama3": (
        LLAMA3,
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "llama2": (LLAMA2, "<s>", "</s>", []),
    "gemma": (GEMMA, "<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "qwen3": (QWEN3, None, "<|im_end|>", ["<|im_start|>"]),
}


@cache
def make_family(family: str, tagged: bool = False) -> PreTrainedTokenizerBase:
    """Make the tokenizer of a family, whose template may have `{% generation %}` tags.

    Tests share it and must not change it.
    """
    template, bos, eos, special = FAMILIES[family]
    tokenizer = make_tokenizer("sentencepiece" if family == "llama2" else "chatml")
    tokenizer.add_special_tokens({"eos_token": eos, "extra_special_tokens": special})
    if bos and family != "llama2":
        tokenizer.add_special_tokens({"bos_token": bos})
        first = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
        tokenizer.backend_tokenizer.post_processor = first
    tags = re.compile(r"\{% (end)?generation %\}")
    tokenizer.chat_template = template if tagged else tags.sub("", template)
    return tokenizer
