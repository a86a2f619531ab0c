"""Tokenizers of several habits, made from the bundled one without a file or a download.

`HABITS` names them; `make_tokenizer` makes one. A test that needs a folder calls `save_pretrained`.
"""

from functools import cache
from itertools import groupby
from operator import itemgetter

from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lit_entrodrop.data.chats.encoding import encode_chat
from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.model.loading import load_tokenizer

BUNDLED = "package:lit_entrodrop/model/tiny_base"

_TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def _loop(turn: str) -> str:
    return "{% for m in messages %}" + turn + "{% endfor %}" + _PROMPT


CHATML = _loop(_TURN)
# Begins with a system prompt of its own if the chat has none, as Qwen2.5 does.
DEFAULT_SYSTEM = _loop(
    "{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant named Testy.<|im_end|>\n' }}{% endif %}"
    + _TURN
)
# Refuses system prompts and roles that do not alternate, and trims, as Gemma 2 does.
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
) + _loop(
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}"
)
# Renders tools and the calls of tools, as Qwen2.5 does.
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for t in tools %}{{ t | tojson }}"
    "{{ '\n' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
) + _loop(
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.content %}{{ m.content }}{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{% set f = c.function if c.function is defined else c %}{{ '<tool_call>' }}"
    "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}{{ '</tool_call>' }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}"
)
# Strips the reasoning of earlier turns, and adds an empty one to the last, as Qwen3 does.
THINK = _loop(
    "{% set c = m.content %}{% if m.role == 'assistant' %}"
    "{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ c + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}"
    "{% endif %}"
)
# Marks what the assistant generates.
TAGGED = _loop(
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m.content + '<|im_end|>\n' }}{% endif %}"
)
_CHAT = {
    "chatml": CHATML,
    "chatml_other_eos": CHATML,
    "default_system": DEFAULT_SYSTEM,
    "no_system": NO_SYSTEM,
    "tools": TOOLS,
    "think": THINK,
    "tagged": TAGGED,
}
HABITS = (*_CHAT, "bos", "sentencepiece")


def make_tokenizer(
    habit: str = "chatml", chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """Make a tokenizer of a habit; its chat template can be replaced.

    The tokens `<|im_start|>` and `<|im_end|>` are special. `<|im_end|>` is the EOS token, except of
    "chatml_other_eos" (`<|endoftext|>`), "bos" (`<|end_of_text|>`, and `<|begin_of_text|>` before
    every text) and "sentencepiece" (`</s>`, a space before every text, no turns).
    """
    if habit == "sentencepiece":
        tokenizer = _sentencepiece()
    elif habit == "bos":
        tokenizer = _with_bos()
    else:
        tokenizer = _with_turns()
        tokenizer.eos_token = "<|endoftext|>" if habit == "chatml_other_eos" else "<|im_end|>"
        tokenizer.chat_template = _CHAT[habit]
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def learned(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, train_on: TrainOn = "completions"
) -> list[str]:
    """Return the runs of tokens of a chat that the loss counts, as text."""
    ids, counted, _ = encode_chat(chat, tokenizer, train_on)
    return runs(tokenizer, ids, counted)


def runs(tokenizer: PreTrainedTokenizerBase, ids: list[int], counted: list[bool]) -> list[str]:
    """Return the runs of tokens that the loss counts, as text."""
    groups = groupby(zip(counted, ids, strict=True), key=itemgetter(0))
    return [tokenizer.decode([token for _, token in group]) for counts, group in groups if counts]


def _with_turns() -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(BUNDLED)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def _with_bos() -> PreTrainedTokenizerBase:
    tokenizer = _with_turns()
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos})
    starting = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), starting]
    )
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    return tokenizer


def _sentencepiece() -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_sentencepiece()),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@cache
def _trained_sentencepiece() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    line = " ".join(
        f"the patient number {n} has fever and cough; question: what is it? answer: yes no."
        for n in range(50)
    )
    tokenizer.train_from_iterator([line] * 5, trainer)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer.to_str()
