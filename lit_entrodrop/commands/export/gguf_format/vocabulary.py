"""Tokenizers that llama.cpp reads as they were trained: byte-level BPE."""

import json
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_WORDS = {**_BYTES, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


# Name in llama.cpp: steps of the pre-tokenizer, and whether a word of the vocabulary is one token
# whatever the merges.
PRE_TOKENIZERS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "gpt-2": ([_WORDS], False),
    "smollm": ([_DIGITS, _WORDS], False),
    "qwen2": ([_split(rf"{_LETTERS}|\p{{N}}|{_REST}"), _BYTES], False),
    "llama-bpe": ([_split(rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"), _BYTES], True),
    "smaug-bpe": ([_split(rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"), _BYTES], False),
}
ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")


def pre_tokenizer_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of a tokenizer's pre-tokenizer in llama.cpp.

    Raises:
        ValueError: If llama.cpp has none that splits text in the same way, or the tokenizer is no
            byte-level BPE.
    """
    described = _describe(tokenizer)
    model, normalizer = described["model"], described["normalizer"]
    if model["type"] != "BPE" or model["byte_fallback"]:
        kind = f"{model['type']}{' with byte fallback' if model.get('byte_fallback') else ''}"
        raise _refusal("a byte-level BPE tokenizer", kind)
    # llama.cpp does not normalize text either way; nearly all text is in NFC.
    if normalizer not in (None, {"type": "NFC"}):
        raise _refusal("a tokenizer without a normalizer", normalizer["type"])
    steps = _steps(described["pre_tokenizer"])
    for name, (known, ignores_merges) in PRE_TOKENIZERS.items():
        if steps == known and model["ignore_merges"] == ignores_merges:
            return name
    raise _refusal(f"the pre-tokenizer {', '.join(PRE_TOKENIZERS)}", json.dumps(steps))


def check_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with which llama.cpp would read text in another way.

    Raises:
        ValueError: If the pre-tokenizer is unknown, there is no EOS token, or text begins or ends
            with tokens other than BOS and EOS.
    """
    pre_tokenizer_of(tokenizer)
    if tokenizer.eos_token_id is None:
        raise _refusal("a tokenizer with an EOS token", "none")
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first, last = _marks(tokenizer)
    marked = [*[tokenizer.bos_token_id] * first, *bare, *[tokenizer.eos_token_id] * last]
    if whole != marked:
        tokens = " ".join(tokenizer.convert_ids_to_tokens(whole))
        raise _refusal("a tokenizer that adds only BOS and EOS", tokens)


def add_vocabulary(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int, stops: list[int]
) -> None:
    """Add tokens, merges, special tokens and the chat template to a file.

    Args:
        writer: The file.
        tokenizer: Tokenizer that :func:`check_vocabulary` accepts.
        size: Rows of the embedding; those without a token are marked as unused.
        stops: Tokens at which generation stops.
    """
    tokens, types = _tokens(tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_of(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in _describe(tokenizer)["model"]["merges"]])
    ids = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
    # llama.cpp would else take token 11 for BOS. Documents begin where another ended.
    ids["bos"] = ids["eos"] if ids["bos"] is None else ids["bos"]
    others = [token for token in stops if token != ids["eos"]]
    ids |= dict(zip(("eot", "eom"), others, strict=False))
    for role, token in ids.items():
        if token is not None:
            getattr(writer, f"add_{role}_token_id")(token)
    first, last = _marks(tokenizer)
    writer.add_add_bos_token(first)
    writer.add_add_eos_token(last)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.get_chat_template())


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer begins every text with BOS."""
    return _marks(tokenizer)[0]


def _marks(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Return whether a tokenizer begins every text with BOS, and ends it with EOS."""
    ids = tokenizer("")["input_ids"]
    return tokenizer.bos_token_id in ids[:1], tokenizer.eos_token_id in ids[-1:] and len(ids) > 1


def _tokens(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[list[str], list[int]]:
    added = tokenizer.added_tokens_decoder
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for index in range(size):
        kind = gguf.TokenType.NORMAL
        if index not in known:
            kind = gguf.TokenType.UNUSED
        elif index in added:
            special = added[index].special
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        tokens.append(known.get(index, f"[PAD{index}]"))
        types.append(int(kind))
    return tokens, types


def _describe(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal("a fast tokenizer", type(tokenizer).__name__)
    described: dict[str, Any] = json.loads(backend.to_str())
    return described


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a pre-tokenizer, without what changes only offsets."""
    if pre_tokenizer is None:
        return []
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return [
        {name: value for name, value in step.items() if name != "trim_offsets"} for step in steps
    ]


def _refusal(expected: str, got: str) -> ValueError:
    return ValueError(
        f"format: expected {expected} for GGUF, got {got}: export without --format, and convert "
        "the folder with convert_hf_to_gguf.py of llama.cpp, if that knows the tokenizer"
    )
