"""Tokenize documents, and mark the tokens that the loss counts."""

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import (
    ALPACA_PROMPT,
    BLANK,
    SPECIAL_IN_TEXT,
    SPLIT_SPECIAL,
    UNLABELED,
    sum_adjustments,
)
from lit_entrodrop.data.chats.encoding import encode_chat
from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.rendering import check_chat_template
from lit_entrodrop.data.documents import Document, Kind
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.data.records.alpaca import with_prompt
from lit_entrodrop.data.tokens.encoded import Encoded
from lit_entrodrop.data.tokens.special_tokens import any_of, special_tokens
from lit_entrodrop.data.tokens.text_encoding import encode_completion, encode_texts, with_one_bos
from lit_entrodrop.runtime.progress import progress

# Limits of a batch; the backend of a tokenizer takes about 100 bytes for a character.
MOST_DOCUMENTS = 1000
MOST_CHARACTERS = 2**18
MOST_PROCESSES = 16
BYTES_PER_PROCESS = 2**22


@dataclass(frozen=True)
class TokenizedDocuments:
    """Tokens of documents, one document after another.

    Attributes:
        tokens: Token ids, [tokens] uint16 if they fit, else uint32.
        counted: Whether the loss counts each token as a label, [tokens] bool.
        lengths: Number of tokens in each document, [documents] int64; 0 for a skipped one.
        adjustments: How often text was skipped, cut or changed, by reason.
    """

    tokens: NDArray[np.unsignedinteger]
    counted: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    adjustments: Mapping[str, int] = field(default_factory=dict)

    def select(self, chosen: NDArray[np.bool_]) -> "TokenizedDocuments":
        """Return the documents of a mask, [documents] bool, in the same order."""
        kept = np.repeat(chosen, self.lengths)
        return TokenizedDocuments(
            self.tokens[kept], self.counted[kept], self.lengths[chosen], self.adjustments
        )


def tokenize_documents(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    num_proc: int = 1,
    desc: str = "Tokenizing",
    train_on: TrainOn = "completions",
) -> Iterator[TokenizedDocuments]:
    """Tokenize documents in batches; each document ends with EOS.

    Each starts with the tokenizer's BOS token, if any. A prompt and its completion are tokenized
    separately, as at inference. Chats follow the chat template; if it does not end with EOS, one is
    added. `train_on` selects the part of these that the loss counts. A blank document, or one
    without a token to predict, is skipped and counted. The result does not depend on the number of
    processes.

    Raises:
        ValueError: If a chat cannot be tokenized.
    """
    with progress(desc, len(documents), unit="documents") as advance:
        for part in _encode_batches(_batches(documents), tokenizer, num_proc, train_on):
            yield part
            advance(len(part.lengths))


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, kinds: Collection[Kind]) -> None:
    """Raise a ValueError if a tokenizer cannot tokenize documents of some kinds."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has no EOS token: expected one to end each "
            "document. Set eos_token in its tokenizer_config.json."
        )
    if "messages" in kinds or ("instruction" in kinds and tokenizer.chat_template):
        check_chat_template(tokenizer)


def count_processes(num_proc: int | None, size: int) -> int:
    """Return how many processes tokenize text of some bytes.

    A process takes about a second to start, or seconds where it imports everything again.

    >>> count_processes(num_proc=4, size=1000), count_processes(num_proc=4, size=10**9)
    (1, 4)
    """
    if num_proc is None:
        affinity = getattr(os, "sched_getaffinity", None)
        num_proc = min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_PROCESSES)
    return min(num_proc, 1 + size // BYTES_PER_PROCESS)


def encode_batch(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    train_on: TrainOn = "completions",
) -> TokenizedDocuments:
    """Tokenize documents of any kind in one process."""
    has_template = bool(tokenizer.chat_template)
    instructions = sum(document.kind == "instruction" for document in documents)
    prompts = {ALPACA_PROMPT: instructions} if instructions and not has_template else {}
    documents = [with_prompt(document, has_template) for document in documents]
    plain = [document.content for document in documents if document.kind == "text"]
    texts = iter(encode_texts(plain, tokenizer))
    special = any_of(special_tokens(tokenizer))
    rows = [
        _finish(
            document,
            next(texts) if document.kind == "text" else _encode(document, tokenizer, train_on),
            tokenizer,
            special,
        )
        for document in documents
    ]
    tokens = np.fromiter(chain.from_iterable(row.ids for row in rows), np.uint32)
    return TokenizedDocuments(
        tokens.astype(np.uint16) if tokens.max(initial=0) < 2**16 else tokens,
        np.fromiter(chain.from_iterable(row.counted for row in rows), np.bool_),
        np.array([len(row.ids) for row in rows], np.int64),
        sum_adjustments([*(row.adjustments for row in rows), prompts]),
    )


def digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash everything in a tokenizer that determines tokens, 32 hexadecimal digits."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend else sorted(tokenizer.get_vocab().items())
    special = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.split_special_tokens,
    )
    described = [type(tokenizer).__name__, vocabulary, special, tokenizer.chat_template]
    return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        characters += len(document.content)
        if batch and (len(batch) == MOST_DOCUMENTS or characters > MOST_CHARACTERS):
            yield batch
            batch, characters = [], len(document.content)
        batch.append(document)
    if batch:
        yield batch


def _encode_batches(
    batches: Iterable[list[Document]],
    tokenizer: PreTrainedTokenizerBase,
    num_proc: int,
    train_on: TrainOn,
) -> Iterator[TokenizedDocuments]:
    if num_proc == 1:
        yield from (encode_batch(batch, tokenizer, train_on) for batch in batches)
        return
    try:
        with ProcessPoolExecutor(
            num_proc, initializer=_set_worker_tokenizer, initargs=(tokenizer,)
        ) as pool:
            # Bounded, as batches are read faster than they are tokenized.
            waiting: deque[Future[TokenizedDocuments]] = deque()
            for batch in batches:
                waiting.append(pool.submit(_encode_in_worker, batch, train_on))
                if len(waiting) > 2 * num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ValueError(
            f"data.num_proc: expected {num_proc} processes to tokenize, but one was killed, "
            "perhaps because memory ran out: set fewer, or 1"
        ) from error


_worker_tokenizer: PreTrainedTokenizerBase | None = None


def _set_worker_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    # Sent once per process, as a tokenizer may be as large as many documents.
    global _worker_tokenizer
    _worker_tokenizer = tokenizer
    # The threads of its backend do not survive a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _encode_in_worker(documents: Sequence[Document], train_on: TrainOn) -> TokenizedDocuments:
    assert _worker_tokenizer is not None, "set when the process starts"
    return encode_batch(documents, _worker_tokenizer, train_on)


def _encode(document: Document, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn) -> Encoded:
    try:
        return _ENCODERS[document.kind](document.content, tokenizer, train_on)
    except ValueError as error:
        raise ValueError(f"{document.where}: {error}") from error


def _encode_messages(
    content: str, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn
) -> Encoded:
    return encode_chat(Chat.from_json(content), tokenizer, train_on)


_ENCODERS: dict[str, Callable[[str, PreTrainedTokenizerBase, TrainOn], Encoded]] = {
    "completion": encode_completion,
    "messages": _encode_messages,
}


def _finish(
    document: Document,
    row: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    special: re.Pattern[str],
) -> Encoded:
    """Skip a document that is blank or has no label, and count the special tokens in its text."""
    inner = document.content
    if not tokenizer.split_special_tokens:
        # A text may begin and end with the tokens that it gets anyway.
        inner = inner.removeprefix(tokenizer.bos_token or "").removesuffix(tokenizer.eos_token)
    if not inner.strip():
        return Encoded([], [], {BLANK: 1})
    if not row.ids:
        return row
    row = with_one_bos(row, tokenizer)
    # The first token has no context that could predict it.
    if not any(row.counted[1:]):
        return Encoded([], [], {UNLABELED: 1})
    count = len(special.findall(inner))
    reason = SPLIT_SPECIAL if tokenizer.split_special_tokens else SPECIAL_IN_TEXT
    return row._replace(adjustments={**row.adjustments, reason: count}) if count else row
