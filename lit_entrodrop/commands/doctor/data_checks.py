"""Checks of the text, its tokens and its blocks; none runs the model."""

import numpy as np

from lit_entrodrop.commands.doctor import near_duplicates as index
from lit_entrodrop.commands.doctor.check import CheckResult, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.document_text import excerpt, first_difference, sample, text_of
from lit_entrodrop.data.adjustments import BEYOND_LIMIT, CUT, DROPPED, describe_adjustments
from lit_entrodrop.data.preparing.splitting import SPLITS
from lit_entrodrop.data.tokenizing import tokenize_documents
from lit_entrodrop.model.building import build_hf_config

CONFIGURED = {BEYOND_LIMIT, CUT, DROPPED}  # adjustments that a setting asks for
SAMPLED = 500  # documents to tokenize again
MUCH_PADDING = 0.2  # share of the positions of a split
MANY_CUT = 0.5  # share of the documents
MUCH_UNKNOWN = 0.001  # share of the tokens
FEW_DOCUMENTS = 30
FAR = 0.5  # relative to the configured share
MANY_COPIES = 0.01  # share of the documents of a split
REMOVE_COPIES = (
    "remove the copies from one of the splits: they make the loss look better than on new text"
)


def tokenizer_round_trip(run: ConfiguredRun) -> CheckResult:
    """Encode and decode a sample of documents, and compare the result with the original."""
    tokenizer = run.data.tokenizer
    texts = [text_of(document) for document in sample(run.documents["train"], SAMPLED)]
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    decoded = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids) / max(sum(map(len, ids)), 1)
    found = f"{len(texts):,} documents sampled, {unknown:.2%} of their tokens are unknown"
    if unknown > MUCH_UNKNOWN:
        remedy = "use a tokenizer that covers the characters of the text, e.g. a byte-level one"
        return failed(found, remedy)
    changed = [(text, again) for text, again in zip(texts, decoded, strict=True) if text != again]
    if changed:
        return warned(
            f"{found}; {len(changed):,} change when decoded, e.g. {first_difference(*changed[0])}",
            "the model cannot learn what its tokenizer drops: if that matters, clean the text or "
            "use another tokenizer",
        )
    return passed(f"{found}; all decode to the original text")


def context_length(run: ConfiguredRun) -> CheckResult:
    """Compare the block size with the model's context and with the lengths of documents."""
    block_size = run.data.block_size
    hf_config = build_hf_config(run.workload.lm)
    context: int | None = getattr(hf_config, "max_position_embeddings", None)
    sampled = sample(run.documents["train"], SAMPLED)
    tokenized = tokenize_documents(sampled, run.data.tokenizer, desc="Sampling")
    lengths = np.concatenate([part.lengths for part in tokenized])
    cut = float((lengths > block_size).mean())
    found = (
        f"blocks of {block_size:,} tokens, model context of {f'{context:,}' if context else 'any'}"
        f" tokens; {cut:.1%} of {len(lengths):,} sampled documents exceed a block "
        f"(median {np.median(lengths):,.0f}, longest {lengths.max():,} tokens)"
    )
    if context is not None and block_size > context:
        return failed(found, f"lower data.block_size to {context} or less")
    if cut > MANY_CUT and (context is None or 2 * block_size <= context):
        return warned(
            found,
            "raise data.block_size and lower data.batch_size by the same factor: "
            "tokens do not see what is in another block",
        )
    return passed(found)


def skipped_or_changed(run: ConfiguredRun) -> CheckResult:
    """Count what was skipped, cut or changed on the way from text to blocks, by reason."""
    found = {
        name: {reason: count for reason, count in split.adjustments.items() if count}
        for name, split in run.data.splits.items()
    }
    statement = "; ".join(
        f"{name}: {describe_adjustments(adjustments)}"
        for name, adjustments in found.items()
        if adjustments
    )
    if all(reason in CONFIGURED for adjustments in found.values() for reason in adjustments):
        return passed(statement or "nothing")
    return warned(
        statement,
        "compare the text with what you meant to train on; docs/text.md explains the reasons",
    )


def padding(run: ConfiguredRun) -> CheckResult:
    """Compute the share of padding, which wastes computation."""
    blocks = run.train_blocks
    found = f"{blocks.padding:.1%} of the positions in {len(blocks):,} training blocks"
    if blocks.padding <= MUCH_PADDING:
        return passed(found)
    if not run.data.packing:
        return warned(found, "set data.packing to true: documents in the same block stay isolated")
    return warned(found, "set another data.block_size: documents leave gaps in blocks of this size")


def validation_size(run: ConfiguredRun) -> CheckResult:
    """Check that validation and evaluation sets have enough documents for stable loss curves."""
    documents = {name: len(run.documents[name]) for name in run.data.held_out}
    found = ", ".join(
        f"{name} {count:,} documents, {run.data.blocks(name).num_tokens:,} tokens"
        for name, count in documents.items()
    )
    if "validation" not in documents:
        return (warned if documents else failed)(
            f"no validation split: overfitting cannot be detected; evaluated: {found or 'nothing'}",
            "set data.validation to a share such as 0.1, or to a separate corpus",
        )
    if few := [name for name, count in documents.items() if count < FEW_DOCUMENTS]:
        return warned(
            f"{found}: the loss on {' and '.join(few)} depends on few documents",
            f"give {FEW_DOCUMENTS} documents or more, for validation by a larger data.validation",
        )
    return passed(found)


def split_shares(run: ConfiguredRun) -> CheckResult:
    """Compare the share of documents and tokens in each split with the configured one."""
    configured = {name: run.config["data"][name] for name in ("validation", "test", "holdout")}
    shares = {name: of for name, of in configured.items() if isinstance(of, float | int) and of > 0}
    if not shares:
        return passed("no split is a share of the corpus")
    own = [name for name in SPLITS if not isinstance(configured.get(name), str)]
    got = {"documents": shares_of({name: len(run.split_documents.get(name, [])) for name in own})}
    # A limit on training text changes the token shares, but not the split.
    if run.config["data"]["max_train_tokens"] is None:
        blocks = {name: run.blocks(name) for name in own}
        got["tokens"] = shares_of({name: b.num_tokens if b else 0 for name, b in blocks.items()})
    found = ", ".join(
        f"{name} {' and '.join(f'{of[name]:.1%} of {what}' for what, of in got.items())} "
        f"({share:.1%} configured)"
        for name, share in shares.items()
    )
    far = max(abs(of[name] / share - 1) for name, share in shares.items() for of in got.values())
    if far > FAR:
        return warned(
            found,
            "there are few documents, or their lengths are uneven: try another data.split_seed or "
            "share, or divide long documents",
        )
    return passed(found)


def near_duplicates(run: ConfiguredRun) -> CheckResult:
    """Look for training documents that are also in text to evaluate on, nearly or exactly."""
    documents = run.documents
    held_out = {name: of for name, of in documents.items() if name not in ("train", "holdout")}
    if not held_out:
        return passed("there is no split besides training")
    train = run.train_index
    statements, copies, worst = [], 0, 0.0
    for name, split in held_out.items():
        sampled = sample(split, index.COMPARED)
        exact = len(np.intersect1d(documents["train"].digests, split.digests))
        pairs = train.query(sampled, f"Comparing {name}")
        near = len({pair.queried for pair in pairs})
        copies, worst = copies + exact, max(worst, near / len(sampled))
        statements.append(
            f"{exact:,} exact and {near:,} near duplicates of training documents among "
            f"{_count(len(sampled), len(split))} {name} documents"
        )
        if pairs:
            pair = max(pairs, key=lambda each: each.similarity)
            statements.append(
                f"e.g. {excerpt(text_of(sampled[pair.queried]))} and "
                f"{excerpt(text_of(train.documents[pair.indexed]))} ({pair.similarity:.2f})"
            )
    if len(train.documents) < len(documents["train"]):
        compared = _count(len(train.documents), len(documents["train"]))
        statements.append(f"compared with {compared} training documents")
    found = "; ".join(statements)
    if copies or worst >= MANY_COPIES:
        return failed(found, REMOVE_COPIES)
    return warned(found, REMOVE_COPIES) if worst else passed(found)


def train_duplicates(run: ConfiguredRun) -> CheckResult:
    """Count the training documents that repeat an earlier one, nearly or exactly."""
    train = run.train_index
    repeated = len({pair.queried for pair in train.query_itself() if pair.indexed < pair.queried})
    return passed(
        f"{repeated / len(train.documents):.1%} of "
        f"{_count(len(train.documents), len(run.documents['train']))} training documents "
        "nearly repeat another one (for information: repeated text overfits first)"
    )


def shares_of(counts: dict[str, int]) -> dict[str, float]:
    """Divide numbers by their sum.

    >>> shares_of({"train": 3, "validation": 1})
    {'train': 0.75, 'validation': 0.25}
    """
    total = max(sum(counts.values()), 1)
    return {name: count / total for name, count in counts.items()}


def _count(sampled: int, all_: int) -> str:
    return f"{all_:,}" if sampled == all_ else f"{sampled:,} sampled of {all_:,}"


DATA = Theme(
    "data",
    (
        skipped_or_changed,
        tokenizer_round_trip,
        context_length,
        padding,
        validation_size,
        split_shares,
        near_duplicates,
        train_duplicates,
    ),
)
