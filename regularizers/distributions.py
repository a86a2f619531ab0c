"""Entropy and divergence of distributions over the vocabulary.

V vocabulary size.
"""

import torch
from torch import Tensor, nn

# Number of columns in a group whose largest logit represents it.
COLUMNS = 16


def token_entropy(logits: Tensor) -> Tensor:
    """Return the Shannon entropy of each predictive distribution, in nats.

    ``H = -Σ_v p_v ln p_v`` with ``p = softmax(logits)``; tokens of probability zero contribute
    zero.

    Args:
        logits: Logits ``[..., V]``, any floating dtype; ``-inf`` excludes a token.

    Returns:
        ``[...]``, fp32 (fp64 for fp64 input), in ``[0, ln V]``.

    >>> token_entropy(torch.zeros(4)).item()  # ln 4
    1.3862943649291992
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    probabilities = logits.softmax(-1)
    # −p ln p has an infinite slope at 0, which would make the gradient NaN; p = 1 is 0 as well.
    probabilities = probabilities.masked_fill(probabilities == 0, 1.0)
    entropy: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy


def top_entropy(logits: Tensor, k: int) -> Tensor:
    """Return the entropy among the k most likely tokens, whose probabilities are renormalized.

    Args:
        logits: Logits ``[..., V]``, any floating dtype.
        k: Number of tokens; all if the vocabulary is smaller.

    Returns:
        ``[...]`` nats, fp32 (fp64 for fp64 input), in ``[0, ln k]``.

    >>> top_entropy(torch.tensor([9.0, 9.0, 8.0, 7.0]), 2).item()  # ln 2
    0.6931471824645996
    """
    return token_entropy(_largest(logits, min(k, logits.shape[-1])))


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p ‖ q) = Σ_v p_v (ln p_v − ln q_v) in nats.

    Args:
        log_p: Log-probabilities ``[..., V]``.
        log_q: Log-probabilities ``[..., V]``.

    Returns:
        ``[...]``, the dtype of the inputs; tokens with p_v = 0 contribute zero, for any q_v.

    >>> half, sure = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    >>> kl_divergence(sure, half).item()  # ln 2
    0.6931471824645996
    """
    excluded = log_p == -torch.inf
    if torch.is_grad_enabled():
        # Masking only the result would leave 0 · ∞ = NaN in the gradient.
        log_p, log_q = (each.masked_fill(excluded, 0.0) for each in (log_p, log_q))
    terms = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    return terms.masked_fill(excluded, 0.0).sum(-1)


def _largest(logits: Tensor, k: int) -> Tensor:
    """Return the k largest logits ``[..., k]``, in any order.

    They are in the k groups of columns with the largest maxima, so that few logits are sorted.
    """
    groups = logits.shape[-1] // COLUMNS
    if groups <= k:
        return logits.topk(k, sorted=False).values
    grouped = logits[..., : groups * COLUMNS].unflatten(-1, (COLUMNS, groups))
    chosen = grouped.amax(-2).topk(k, sorted=False).indices[..., None, :]
    candidates = grouped.gather(-1, chosen.expand(*grouped.shape[:-1], k)).flatten(-2)
    rest = logits[..., groups * COLUMNS :]
    return torch.cat([candidates, rest], -1).topk(k, sorted=False).values
