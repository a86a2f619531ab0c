"""Error of the first kind, and power, of the decision at the end of a search."""

from pathlib import Path

import numpy as np
import pytest

from lit_entrodrop.commands.compare.judging.analysis import ArmTrial
from lit_entrodrop.commands.compare.measuring.measures import SCORE, RunResult
from lit_entrodrop.commands.report.rendering.formatting import LOSS
from lit_entrodrop.commands.tune.result.decision import decide, select_winner, use_winner
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome, best_plain, finalists
from lit_entrodrop.commands.tune.space.sample import Sample

SD = 0.01  # nats per token, of the losses of one setting over seeds
# Of the validation and the test loss of a run: what a lucky seed gives both.
CORRELATION = 0.8


def is_better(random: np.random.Generator, gain: float, trials: int = 40, seeds: int = 3) -> bool:
    """Simulate a search whose methods lower the loss by a gain, up to its verdict."""
    found = []
    for study, sample in (("plain", Sample({})), ("methods", Sample({}, {"method": ("m", {})}))):
        # Settings differ in nothing else than the luck of the seed of the search.
        scores = 3.0 - gain * (study == "methods") + random.normal(0, SD, trials // 2)
        found += [
            TrialOutcome(study, number, "finished", sample, score=score)
            for number, score in enumerate(scores.tolist())
        ]
    plain = best_plain(found)
    assert plain is not None
    arms = {"plain": 0.0, **{trial.name: gain for trial in finalists(found)}}
    losses = {name: _losses(random, 3.0 - own, seeds) for name, own in arms.items()}
    validated = [_arm(name, losses[name][0]) for name in arms if name != "plain"]
    winner = select_winner(validated).arm
    tested = decide(_arm(winner, losses[winner][1]), _arm("plain", losses["plain"][1]))
    return use_winner(tested)


def _losses(
    random: np.random.Generator, mean: float, seeds: int
) -> tuple[list[float], list[float]]:
    own, of_test = random.normal(0, SD, (2, seeds))
    test = CORRELATION * own + (1 - CORRELATION**2) ** 0.5 * of_test
    return (mean + own).tolist(), (mean + test).tolist()


def _arm(name: str, losses: list[float]) -> ArmTrial:
    results = {
        seed: RunResult(Path(), {SCORE: loss, LOSS: loss}, {}, 100)
        for seed, loss in enumerate(losses)
    }
    return ArmTrial(name, {}, results)


def share(gain: float, searches: int, seeds: int = 3) -> float:
    """Return the share of simulated searches whose verdict is "better"."""
    random = np.random.default_rng(0)
    return float(np.mean([is_better(random, gain, seeds=seeds) for _ in range(searches)]))


def test_equal_arms_are_rarely_called_better() -> None:
    assert share(0.0, 600) <= 0.05


@pytest.mark.parametrize(("seeds", "power"), [(3, 0.5), (5, 0.9)])
def test_gain_of_two_standard_deviations_is_found(seeds: int, power: float) -> None:
    # Of the differences between two runs.
    assert share(2 * 2**0.5 * SD, 100, seeds) > power
