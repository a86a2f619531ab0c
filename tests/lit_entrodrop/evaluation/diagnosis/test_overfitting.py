import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lit_entrodrop.evaluation.diagnosis import judge
from lit_entrodrop.evaluation.diagnosis.overfitting import best_epoch_interval, paired_rise

DOCUMENTS = 150


def documents(
    curve: list[float], seed: int = 0, noise: float = 0.3
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Losses of documents that differ from each other, and over epochs, around a curve."""
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 60, DOCUMENTS)
    own = random.normal(scale=0.5, size=DOCUMENTS)
    drift = random.normal(scale=noise, size=(len(curve), DOCUMENTS))
    return (np.array(curve)[:, None] + own + drift) * tokens, tokens


def test_rise_and_error_are_those_of_scipy_for_documents_of_one_length() -> None:
    random = np.random.default_rng(0)
    difference = random.normal(0.1, 1.0, size=40)
    rise, error = paired_rise(3 * difference, np.full(40, 3))
    expected = stats.ttest_1samp(difference, 0)
    assert rise == pytest.approx(difference.mean())
    assert rise / error == pytest.approx(expected.statistic)


def test_error_of_uneven_documents_is_that_of_a_bootstrap() -> None:
    nll, tokens = documents([3.0, 3.1])
    difference = nll[1] - nll[0]
    _, error = paired_rise(difference, tokens)
    random = np.random.default_rng(1)
    chosen = random.integers(DOCUMENTS, size=(4000, DOCUMENTS))
    drawn = difference[chosen].sum(1) / tokens[chosen].sum(1)
    assert error == pytest.approx(drawn.std(), rel=0.1)


def test_overfitting_is_called_at_its_epoch() -> None:
    nll, tokens = documents([5.0, 4.0, 3.5, 3.4, 3.5, 3.6, 3.8])
    verdict = judge(nll, tokens, np.arange(7.0), np.array([5.0, 4.0, 3.4, 3.1, 2.9, 2.7, 2.5]))
    assert verdict.kind == "overfits"
    assert verdict.best_epoch == 3
    assert verdict.onset_epoch == 4
    assert verdict.rise == pytest.approx(0.4, abs=0.1)
    assert verdict.rise_interval[0] < 0.4 < verdict.rise_interval[1]
    low, high = verdict.best_epoch_interval
    assert 2 <= low <= 3 <= high <= 4
    assert verdict.clean_train_change == pytest.approx(-0.6)


def test_a_loss_that_falls_holds() -> None:
    nll, tokens = documents([5.0, 4.0, 3.5, 3.2])
    verdict = judge(nll, tokens, np.arange(4.0))
    assert verdict.kind == "holds"
    assert verdict.rise == 0
    assert verdict.onset_epoch is None


def test_a_rise_too_small_to_matter_holds() -> None:
    nll, tokens = documents([5.0, 3.5, 3.52], noise=0.01)
    verdict = judge(nll, tokens, np.arange(3.0))
    assert verdict.confidence > 0.99
    assert verdict.kind == "holds"


def test_a_rise_of_few_documents_is_too_unsure() -> None:
    nll, tokens = documents([5.0, 3.5, 3.6], noise=2.0)
    verdict = judge(nll[:, :8], tokens[:8], np.arange(3.0))
    assert verdict.kind == "holds"


def test_a_loss_that_rises_everywhere_diverges() -> None:
    nll, tokens = documents([5.0, 3.5, 4.5])
    verdict = judge(nll, tokens, np.arange(3.0), np.array([5.0, 3.3, 4.3]))
    assert verdict.kind == "diverges"
    assert verdict.onset_epoch is None


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_noise_alone_is_seldom_called_overfitting_at_any_look(noise: float) -> None:
    """Who looks after each evaluation, for the lowest of those before, finds chance at last."""
    called = 0
    for seed in range(60):
        nll, tokens = documents([5.0] + [3.0] * 9, seed=seed, noise=noise)
        nll, tokens = nll[:, :60], tokens[:60]
        called += any(
            judge(nll[:looks], tokens, np.arange(float(looks))).overfits for looks in range(3, 11)
        )
    # 5 % of 60 are 3; as many as 6 are within chance.
    assert called <= 6


@pytest.mark.parametrize("evaluations", [1, 3])
def test_too_little_is_unknown(evaluations: int) -> None:
    nll, tokens = np.ones((evaluations, 1)), np.ones(1, dtype=np.int64)
    assert judge(nll, tokens, np.arange(float(evaluations))).kind == "unknown"


def test_documents_without_a_token_of_the_group_do_not_count() -> None:
    nll, tokens = documents([5.0, 3.0, 3.5])
    padded = np.concatenate([nll, np.zeros((3, 50))], axis=1)
    counts = np.concatenate([tokens, np.zeros(50, dtype=np.int64)])
    assert judge(padded, counts, np.arange(3.0)) == judge(nll, tokens, np.arange(3.0))


def test_interval_covers_the_lowest_of_a_flat_curve() -> None:
    nll, tokens = documents([5.0, 3.0, 2.99, 2.99, 3.0, 4.0], noise=0.8)
    low, high = best_epoch_interval(nll, tokens, np.arange(6.0))
    assert low <= 2
    assert high >= 3
