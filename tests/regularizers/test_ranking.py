import numpy as np
import pytest
import scipy.stats
import torch

from regularizers.ranking import (
    blended_quantile,
    percentile_in_corpus,
    percentile_in_group,
    ranking_groups,
)


def test_ranking_groups_never_join_documents_or_rows() -> None:
    document_ids = torch.tensor([[3, 3, 9, -1], [9, 9, 9, 9], [-1, -1, -1, -1]])
    by_document = ranking_groups(document_ids, "document")
    assert by_document.tolist() == [[0, 0, 1, 2], [3, 3, 3, 3], [4, 4, 4, 4]]
    assert ranking_groups(document_ids, "sequence").tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert not ranking_groups(document_ids, "batch").any()


def test_percentiles_are_those_of_scipy() -> None:
    scores = torch.rand(2, 30, generator=torch.Generator().manual_seed(0))
    eligible = scores > 0.2
    found = percentile_in_group(scores, eligible, ranking_groups(eligible.long(), "sequence"))
    for row in range(2):
        known = scores[row][eligible[row]]
        expected = (scipy.stats.rankdata(known) - 0.5) / len(known)
        np.testing.assert_allclose(found[row][eligible[row]], expected, rtol=1e-6)
    corpus = torch.tensor([0.0, 0.0, 0.25, 1.0, 3.0])
    expected = [[scipy.stats.percentileofscore(corpus, x, "mean") / 100 for x in (0.0, 0.5, 3.0)]]
    found = percentile_in_corpus(torch.tensor([[0.0, 0.5, 3.0]]), corpus)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_blended_quantiles_are_those_of_a_trapezoid(weight: float) -> None:
    narrow, wide = min(weight, 1 - weight), max(weight, 1 - weight)
    trapezoid = scipy.stats.trapezoid(narrow, wide)
    for share in np.linspace(0, 1, 41):
        assert blended_quantile(share, weight) == pytest.approx(trapezoid.ppf(share), abs=1e-7)
