"""Tokenizers are written with the pre-tokenizer that llama.cpp knows, or refused by name."""

from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lit_entrodrop.commands.export.gguf_format.vocabulary import (
    PRE_TOKENIZERS,
    add_vocabulary,
    check_vocabulary,
    pre_tokenizer_of,
)
from tests.helpers.tiny import texts
from tests.helpers.tokenizer_habits import make_tokenizer

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
# As in the tokenizer.json of the models.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


STEPS = {
    "gpt-2": WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WORDS]),
    "qwen2": pre_tokenizers.Sequence([split(QWEN2), BYTES]),
    "llama-bpe": pre_tokenizers.Sequence([split(LLAMA3), BYTES]),
    "smaug-bpe": pre_tokenizers.Sequence([split(LLAMA3), BYTES]),
}


def train_tokenizer(
    steps: pre_tokenizers.PreTokenizer, ignore_merges: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with merges across digits, spaces and punctuation."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [f"{text}'s {number} 1234 ...\n\n  I'LL'" for number, text in enumerate(texts(100))]
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_pre_tokenizers_are_recognized() -> None:
    assert STEPS.keys() == PRE_TOKENIZERS.keys()
    for name, steps in STEPS.items():
        assert pre_tokenizer_of(train_tokenizer(steps, name == "llama-bpe")) == name
    nfc = train_tokenizer(STEPS["qwen2"])
    nfc.backend_tokenizer.normalizer = normalizers.NFC()
    assert pre_tokenizer_of(nfc) == "qwen2"


def changed(**parts: Any) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(WORDS)
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


def test_what_llama_cpp_reads_otherwise_is_refused() -> None:
    mark = processors.TemplateProcessing(single="$A a", special_tokens=[("a", 66)])
    without_eos = train_tokenizer(WORDS)
    without_eos.eos_token = None
    refused = {
        "a byte-level BPE tokenizer for GGUF, got BPE with byte fallback": make_tokenizer(
            "sentencepiece"
        ),
        "the pre-tokenizer gpt-2, .* got .*Whitespace": changed(
            pre_tokenizer=pre_tokenizers.Whitespace()
        ),
        "a tokenizer without a normalizer for GGUF, got Lowercase": changed(
            normalizer=normalizers.Lowercase()
        ),
        "adds only BOS and EOS for GGUF, got a b.*convert_hf_to_gguf": changed(post_processor=mark),
        "a tokenizer with an EOS token": without_eos,
    }
    for message, tokenizer in refused.items():
        with pytest.raises(ValueError, match=message):
            check_vocabulary(tokenizer)


def read(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_tokens_and_their_roles(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("bos")
    tokenizer.add_tokens(["dyspnea"])
    rows, turn = len(tokenizer) + 2, tokenizer.convert_tokens_to_ids("<|im_end|>")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    check_vocabulary(tokenizer)
    add_vocabulary(writer, tokenizer, rows, [tokenizer.eos_token_id, turn])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = read(tmp_path / "a.gguf")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == rows
    kinds = {token: gguf.TokenType(kind).name for token, kind in zip(tokens, types, strict=True)}
    assert kinds["dyspnea"] == "USER_DEFINED"
    assert kinds["<|im_end|>"] == kinds["<|begin_of_text|>"] == "CONTROL"
    assert kinds["Ġthe"] == "NORMAL"
    assert kinds[f"[PAD{rows - 1}]"] == "UNUSED"
    assert fields["tokenizer.ggml.pre"] == "smollm"
    assert fields["tokenizer.ggml.add_bos_token"]
    assert not fields["tokenizer.ggml.add_eos_token"]
    assert fields["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.eot_token_id"] == turn
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
