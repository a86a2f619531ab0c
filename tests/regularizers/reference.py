"""EntroDrop's candidates, written from the formula in plain Python."""

import math
from collections import defaultdict
from collections.abc import Hashable
from copy import copy
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from regularizers import EntroDrop, RandomTokenDropout, TrainingStep


def group_of(row: int, document: int, scope: str) -> Hashable:
    return {"document": (row, document), "sequence": row, "batch": 0}[scope]


def expected_candidates(
    step: TrainingStep, quantile: float, scope: str, select: str = "low_entropy"
) -> set[tuple[int, int]]:
    """Return the (row, position) of the tokens that may be dropped."""
    assert step.entropy is not None
    sign = 1.0 if select == "low_entropy" else -1.0
    ids, documents = step.input_ids.tolist(), step.document_ids.tolist()
    groups: dict[Hashable, list[tuple[float, int, int]]] = defaultdict(list)
    for row, entropies in enumerate(step.entropy.double().tolist()):
        for position, entropy in enumerate(entropies):
            document = documents[row][position]
            starts = position == 0 or documents[row][position - 1] != document
            special = ids[row][position] in step.vocabulary.special_ids
            if document < 0 or starts or special or math.isnan(entropy):
                continue
            key = 0 if scope == "corpus" else group_of(row, document, scope)
            groups[key].append((sign * entropy, row, position))
    if scope == "corpus":
        assert step.corpus_entropy is not None
        limit = np.quantile(sign * step.corpus_entropy.numpy(), quantile)
        return {(row, position) for score, row, position in groups[0] if score <= limit}
    chosen = set()
    for tokens in groups.values():
        count = math.floor(Fraction(str(quantile)) * len(tokens))
        chosen |= {(row, position) for _, row, position in sorted(tokens)[:count]}
    return chosen


def dropped_inputs(regularizer: EntroDrop | RandomTokenDropout, step: TrainingStep) -> Tensor:
    """Observe which tokens are dropped, as zero vectors, ``[B, T]`` bool."""
    embeddings = torch.ones(*step.input_ids.shape, 2)
    observed = copy(regularizer)
    observed.replacement = "zero"
    dropped: Tensor = observed.on_embeddings(embeddings, step).eq(0).all(-1)
    return dropped


def places(mask: Tensor) -> set[tuple[int, int]]:
    """Return the (row, position) where a mask is true."""
    return {(row, position) for row, position in mask.nonzero().tolist()}
