from random import Random

import pytest
from scipy import stats

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.splitting import (
    SPLITS,
    count_duplicates,
    split_documents,
    split_position,
)

DOCUMENTS = [Document("text", f"document {n}") for n in range(2_000)]


def side_of(documents: list[Document], seed: int = 0) -> dict[Document, str]:
    sides = split_documents(documents, validation=0.2, test=0.1, seed=seed)
    return {document: side for side in SPLITS for document in sides[side]}


def test_positions_are_uniform() -> None:
    positions = [split_position(document, seed=0) for document in DOCUMENTS]
    assert stats.kstest(positions, "uniform").pvalue > 0.01


def test_seeds_are_independent() -> None:
    pairs = [[split_position(document, seed) for document in DOCUMENTS] for seed in (0, 1)]
    assert abs(stats.pearsonr(*pairs).statistic) < 0.1


def test_shares_are_met() -> None:
    sides = split_documents(DOCUMENTS, validation=0.2, test=0.1, seed=0)
    asked = {"train": 0.7, "validation": 0.2, "test": 0.1, "holdout": 0.0}
    shares = {split: len(sides[split]) / len(DOCUMENTS) for split in SPLITS}
    assert shares == pytest.approx(asked, abs=0.03)


def test_split_is_a_function_of_seed_and_content() -> None:
    shuffled = Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    assert side_of(DOCUMENTS) == side_of(shuffled)
    assert split_documents(DOCUMENTS, 0.2, 0.1, 0) == split_documents(shuffled, 0.2, 0.1, 0)
    assert side_of(DOCUMENTS) != side_of(DOCUMENTS, seed=1)


def test_documents_keep_their_side_when_others_are_added() -> None:
    before, after = side_of(DOCUMENTS[:500]), side_of(DOCUMENTS)
    assert all(after[document] == side for document, side in before.items())


def test_exact_duplicates_share_a_side() -> None:
    sides = split_documents(DOCUMENTS * 2, validation=0.2, test=0.1, seed=0)
    for first in SPLITS:
        assert all(not set(sides[first]) & set(sides[other]) for other in SPLITS if other != first)
    assert sum(count_duplicates(sides[split]) for split in SPLITS) == len(DOCUMENTS)
