"""Tokens added to the vocabulary of a pretrained model, such as terms of a domain."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_tokens(given: str | Sequence[str] | None) -> list[str]:
    """Return tokens that are given as a list or as the path to a text file, one per line.

    Raises:
        ValueError: If the file cannot be read, or a token is blank or repeated.

    >>> read_tokens(["dyspnea", "tachypnea"])
    ['dyspnea', 'tachypnea']
    """
    if given is None:
        return []
    tokens = _read_lines(given) if isinstance(given, str) else list(given)
    if blank := [token for token in tokens if not token.strip()]:
        raise ValueError(f"lm.add_tokens: expected text, got {blank[0]!r}: remove it")
    if repeated := [token for token in tokens if tokens.count(token) > 1]:
        raise ValueError(f"lm.add_tokens: expected each token once, got {repeated[0]!r} twice")
    return tokens


def add_tokens(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """Add tokens to a tokenizer, which then never splits them.

    Returns:
        Id of each added token, and the ids of its pieces in the vocabulary without it.

    Raises:
        ValueError: If one is a token already.
    """
    pieces = [tokenizer(token, add_special_tokens=False)["input_ids"] for token in tokens]
    known = [repr(t) for t, ids in zip(tokens, pieces, strict=True) if len(ids) < 2]
    if known:
        raise ValueError(
            f"lm.add_tokens: expected text that {tokenizer.name_or_path!r} splits into several "
            f"tokens, got {', '.join(known[:5])}, a token already: remove it from the list"
        )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens], pieces


def extend_embeddings(
    hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]
) -> None:
    """Give added tokens rows in the embeddings and the head of a model, in place.

    A row is the mean of the rows of the token's pieces. A model that has rows enough, as those of
    a padded vocabulary, keeps its size.

    Args:
        hf_model: Model; on the meta device, it gets rows without values.
        tokenizer: Tokenizer without the tokens; they are added to it.
        tokens: The tokens.
    """
    added, pieces = add_tokens(tokenizer, tokens)
    if len(embedding_rows(hf_model)[0]) <= max(added):
        hf_model.resize_token_embeddings(max(added) + 1, mean_resizing=False)
    for rows in embedding_rows(hf_model):
        if not rows.is_meta:
            with torch.no_grad():
                means = [rows[ids].float().mean(0) for ids in pieces]
                rows[added] = torch.stack(means).to(rows.dtype)


def embedding_rows(hf_model: PreTrainedModel) -> list[Tensor]:
    """Return the parameters with a row per token: embeddings, head and its bias, tied ones once."""
    modules: list[nn.Module | None] = [
        hf_model.get_input_embeddings(),
        hf_model.get_output_embeddings(),
    ]
    rows = [getattr(module, name, None) for module in modules for name in ("weight", "bias")]
    return list({id(tensor): tensor for tensor in rows if tensor is not None}.values())


def _read_lines(path: str) -> list[str]:
    file = Path(os.path.expanduser(path))
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"lm.add_tokens: expected a list, or a UTF-8 text file with a token per line, got "
            f"{path!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return [line for line in lines if line.strip()]
