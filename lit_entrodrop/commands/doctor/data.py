"""Checks of the text, its tokens and its blocks; none runs the model."""

from collections.abc import Sequence

import numpy as np
from transformers import PretrainedConfig

from lit_entrodrop.commands.doctor.check import Check, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.duplicates import near_duplicates, train_duplicates
from lit_entrodrop.commands.doctor.subject import Subject
from lit_entrodrop.commands.doctor.texts import first_difference, sample, text_of
from lit_entrodrop.data.splitting import SPLITS
from lit_entrodrop.data.tokenizing import tokenize_documents
from lit_entrodrop.model.building import build_hf_config

SAMPLED = 500  # documents that are tokenised again
MUCH_PADDING = 0.2  # share of the places of a split
MANY_CUT = 0.5  # share of the documents
MUCH_UNKNOWN = 0.001  # share of the tokens
FEW_DOCUMENTS = 30
FAR = 0.5  # relative to the share that was asked for


def tokenizer_round_trip(subject: Subject) -> Check:
    """Decode what was encoded, and compare."""
    tokenizer = subject.data.tokenizer
    texts = [text_of(document) for document in sample(subject.documents["train"], SAMPLED)]
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    back = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    unknown = share_of(tokenizer.unk_token_id, ids)
    found = f"{len(texts):,} documents sampled, {unknown:.2%} of their tokens unknown"
    if unknown > MUCH_UNKNOWN:
        remedy = "take a tokenizer that knows the characters of the text, such as a byte-level one"
        return failed(found, remedy)
    lost = [(text, again) for text, again in zip(texts, back, strict=True) if text != again]
    if lost:
        return warned(
            f"{found}; {len(lost):,} come back changed, e.g. {first_difference(*lost[0])}",
            "the model cannot learn what its tokenizer loses: clean the text, or take another "
            "tokenizer, if that matters to you",
        )
    return passed(f"{found}; all come back as they were")


def context_length(subject: Subject) -> Check:
    """Compare blocks with the model's context and with the lengths of documents."""
    block_size = subject.data.block_size
    context = context_of(build_hf_config(subject.job.lm))
    lengths = tokenize_documents(
        sample(subject.documents["train"], SAMPLED), subject.data.tokenizer, desc="Sampling"
    ).lengths
    cut = float((lengths > block_size).mean())
    found = (
        f"blocks of {block_size:,} of a context of {f'{context:,}' if context else 'any length'}; "
        f"{cut:.1%} of {len(lengths):,} sampled documents are cut (median {np.median(lengths):,.0f}"
        f", longest {lengths.max():,} tokens)"
    )
    if context is not None and block_size > context:
        return failed(found, f"lower data.block_size to {context} or less")
    if cut > MANY_CUT and (context is None or 2 * block_size <= context):
        return warned(
            found, "raise data.block_size, and lower data.batch_size alike: what is cut is not seen"
        )
    return passed(found)


def padding(subject: Subject) -> Check:
    """Tell which share of the places holds padding, on which devices compute for nothing."""
    blocks = subject.blocks("train")
    assert blocks is not None, "there is always something to train on"
    found = f"{blocks.padding:.1%} of the places of {len(blocks):,} training blocks"
    if blocks.padding <= MUCH_PADDING:
        return passed(found)
    if not subject.data.packing:
        return warned(found, "set data.packing to true: documents that share a block stay isolated")
    return warned(found, "choose another data.block_size: documents leave gaps in blocks of this")


def validation_size(subject: Subject) -> Check:
    """Ask for as many validation documents as make a curve of the loss readable."""
    blocks = subject.blocks("validation")
    if blocks is None:
        return failed(
            "no validation split: nothing will show overfitting, and no checkpoint is the best",
            "set data.validation to a share such as 0.1, or to a corpus of its own",
        )
    documents = len(subject.documents["validation"])
    found = f"{documents:,} documents, {len(blocks.tokens):,} tokens"
    if documents < FEW_DOCUMENTS:
        return warned(
            f"{found}: its loss depends on a few documents",
            f"raise data.validation, so that it has {FEW_DOCUMENTS} documents or more",
        )
    return passed(found)


def split_shares(subject: Subject) -> Check:
    """Compare the shares of documents and tokens in each split with those asked for."""
    asked = {name: subject.config["data"][name] for name in ("validation", "test", "holdout")}
    shares = {name: of for name, of in asked.items() if isinstance(of, float | int) and of > 0}
    if not shares:
        return passed("no split is a share of the corpus")
    own = [name for name in SPLITS if not isinstance(asked.get(name), str)]
    got = {"documents": shares_of({name: len(subject.dealt.get(name, [])) for name in own})}
    # Where training text is limited, its tokens say nothing of the split.
    if subject.config["data"]["max_train_tokens"] is None:
        blocks = {name: subject.blocks(name) for name in own}
        got["tokens"] = shares_of({name: len(b.tokens) if b else 0 for name, b in blocks.items()})
    found = ", ".join(
        f"{name} {' and '.join(f'{of[name]:.1%} of {what}' for what, of in got.items())} "
        f"({share:.1%} asked)"
        for name, share in shares.items()
    )
    far = max(abs(of[name] / share - 1) for name, share in shares.items() for of in got.values())
    if far > FAR:
        return warned(
            found,
            "documents are few or of very uneven length: try another data.split_seed or share, or "
            "cut long documents",
        )
    return passed(found)


def context_of(hf_config: PretrainedConfig) -> int | None:
    """Return how many tokens a model can take; None if it sets no bound."""
    return getattr(hf_config, "max_position_embeddings", None)


def share_of(token: int | None, ids: Sequence[Sequence[int]]) -> float:
    """Return which share of all tokens is one token.

    >>> share_of(0, [[0, 1], [2, 3]])
    0.25
    """
    total = sum(map(len, ids))
    return sum(row.count(token) for row in ids) / max(total, 1) if token is not None else 0.0


def shares_of(counts: dict[str, int]) -> dict[str, float]:
    """Divide numbers by their sum.

    >>> shares_of({"train": 3, "validation": 1})
    {'train': 0.75, 'validation': 0.25}
    """
    total = max(sum(counts.values()), 1)
    return {name: count / total for name, count in counts.items()}


DATA = Theme(
    "data",
    (
        tokenizer_round_trip,
        context_length,
        padding,
        validation_size,
        split_shares,
        near_duplicates,
        train_duplicates,
    ),
)
