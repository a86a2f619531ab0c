import numpy as np
import pytest

from lit_entrodrop.evaluation.diagnosis.epoch_drops import EpochDrops, epoch_drops

EPOCHS, ROWS = 4, 12
EPOCH = np.repeat(np.arange(EPOCHS), ROWS)
PROGRESS = np.arange(EPOCHS * ROWS)


def measured(losses: np.ndarray) -> EpochDrops:
    found = epoch_drops(EPOCH, losses)
    assert found is not None
    return found


def test_drops_are_what_falls_beyond_the_slope() -> None:
    sloping = 5 - 0.02 * PROGRESS
    assert measured(sloping - 0.3 * EPOCH).drops == pytest.approx([0.3] * 3)
    assert measured(sloping).drops == pytest.approx([0.0] * 3)
    assert measured(sloping - 0.3 * EPOCH).falls == pytest.approx(0.3 + 0.02 * ROWS)


def test_few_losses_per_epoch_or_a_single_epoch_measure_nothing() -> None:
    assert epoch_drops(np.repeat([0, 1], 7), np.ones(14)) is None
    assert epoch_drops(np.zeros(20), np.ones(20)) is None
    assert epoch_drops([], []) is None


def test_the_error_is_the_scatter_of_the_mean_drop_over_repetitions() -> None:
    random = np.random.default_rng(0)
    found = [measured(2 + 0.1 * random.normal(size=len(EPOCH))) for _ in range(400)]
    true = np.std([each.mean for each in found])
    assert np.median([each.error for each in found]) == pytest.approx(true, rel=0.2)


def test_stairs_need_size_certainty_and_a_lasting_fall() -> None:
    scatter = 0.02 * np.random.default_rng(1).normal(size=len(EPOCH))
    assert measured(5 - 0.2 * EPOCH + scatter).shown
    assert not measured(5 - 0.02 * EPOCH + 0.001 * scatter).shown
    assert not measured(5 - 0.2 * EPOCH + 30 * scatter).shown


def test_text_in_the_same_order_is_no_memorization() -> None:
    random = np.random.default_rng(2)
    batches = np.tile(0.1 * random.normal(size=ROWS), EPOCHS)
    scatter = 0.02 * random.normal(size=len(EPOCH))
    from_easy_to_hard = measured(5 + 0.03 * (PROGRESS % ROWS) + scatter)
    same_batches = measured(5 - 0.2 * EPOCH + batches + scatter)
    assert same_batches.repeats > 0.9
    for found in (from_easy_to_hard, same_batches):
        assert found.from_order
        assert not found.shown
