"""A run that was killed, whenever and however often, ends with the bits of one that was not."""

import random
import signal
from pathlib import Path

import pytest
import torch

from lit_entrodrop.commands.verify_resume.differences import Comparison
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.killing import PHASES
from tests.helpers.processes import describe_ranks, run_cli_ranks
from tests.helpers.runs import exported
from tests.helpers.tiny import CONFIGS, Tiny

STEPS = 4 * 5  # epochs and optimizer steps of each
SETTINGS = [
    "--trainer.max_epochs=4",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.5",
    "--trainer.log_every_n_steps=2",
    "--checkpoints.every_n_train_steps=3",
    "--model.regularizers+=regularizers.EntroDrop",
    "--model.lm.dropout={attention: 0.2, hidden: 0.1, embedding: 0.1}",
]
# Of what a step depends on, beside weights and entropies: averages of weights, and evaluations.
LEARNING = [
    "--model.regularizers+=regularizers.L2SP",
    "--model.regularizers+=regularizers.WaveBound",
    "--model.regularizers.decay=0.8",
    "--model.average={kind: ema, decay: 0.8}",
    "--model.regularizers+=regularizers.RandomTokenDropout",
    "--model.regularizers.curriculum=regularizers.Adaptive",
    "--model.regularizers.curriculum.init_args.step=0.03",
    "--model.regularizers.curriculum.init_args.target=-1",
]
SEEDS = (0, 1)
ENDED = {-signal.SIGKILL, -signal.SIGXFSZ}


def points(seed: int, count: int) -> list[tuple[int, str, int]]:
    """Draw steps, in order, at which a run is killed, and how."""
    draw = random.Random(seed)
    steps, phases = draw.sample(range(STEPS - 1), count), draw.sample(PHASES, count)
    sizes = [draw.randrange(1, 60_000) for _ in range(count)]
    return list(zip(sorted(steps), phases, sizes, strict=True))


def run_on(tiny: Tiny, *arguments: str, root: str, world_size: int = 1) -> int:
    """Run `fit`, or go on with it, in processes of its own, and return how it ended."""
    words = ["fit", *tiny.config(), *SETTINGS, "--ckpt_path=last", *arguments]
    words += [f"--trainer.default_root_dir={tiny.folder / root}"]
    words += [f"--trainer.devices={world_size}"]
    ranks = run_cli_ranks(*words, folder=tiny.folder, world_size=world_size)
    assert ranks[0].returncode <= 0, describe_ranks(ranks)
    return ranks[0].returncode


def kill_at(step: int, phase: str, after_bytes: int = 1000) -> list[str]:
    """Return the arguments with which a run is killed."""
    place = {"step": step, "phase": phase, "after_bytes": after_bytes}
    given = [f"--trainer.callbacks.{name}={value}" for name, value in place.items()]
    return ["--trainer.callbacks+=tests.helpers.killing.KillAt", *given]


def assert_same_runs(killed: Path, whole: Path) -> None:
    """Compare all that two runs leave."""
    assert (killed / METRICS).read_text() == (whole / METRICS).read_text()
    comparison = Comparison()
    for link in ("last.ckpt", "best.ckpt"):
        comparison.compare(*(read_all(run / "checkpoints" / link) for run in (whole, killed)))
    assert comparison.tensors > 100
    # Lightning starts the loop anew at each validation.
    names = [each.name for each in comparison.differences if ".val_loop." not in each.name]
    assert not names


def assert_learning(run: Path) -> None:
    """Require that averages and evaluations were at work in a run."""
    metrics = read_metrics(run)
    assert metrics["wave_bound/below_bound"].max() > 0
    assert metrics["l2_sp/penalty"].max() > 0
    assert metrics["random_token_dropout/strength"].nunique() > 1


@pytest.fixture(scope="module")
def whole(tiny_module: Tiny) -> Path:
    assert run_on(tiny_module, root="whole") == 0
    return tiny_module.folder / "whole"


@pytest.mark.parametrize("seed", SEEDS)
def test_five_kills_in_a_row_change_no_bit(seed: int, tiny_module: Tiny, whole: Path) -> None:
    tiny, root = tiny_module, f"killed{seed}"
    for step, phase, after_bytes in points(seed, 5):
        at = kill_at(step, phase, after_bytes)
        assert run_on(tiny, *at, root=root) in ENDED, at
    assert run_on(tiny, root=root) == 0
    assert_same_runs(tiny.folder / root, whole)


def test_points_are_of_every_kind() -> None:
    assert {phase for seed in SEEDS for _, phase, _ in points(seed, 5)} == set(PHASES)


def test_kills_amid_an_epoch_with_two_validations_change_no_bit(tiny: Tiny) -> None:
    often = ["--trainer.val_check_interval=0.4", "--checkpoints.every_n_train_steps=2"]
    often += ["--trainer.max_epochs=-1", "--trainer.max_steps=13", *LEARNING]
    assert run_on(tiny, *often, root="whole") == 0
    for step in (1, 3, 9):
        assert run_on(tiny, *often, *kill_at(step, "batch_end"), root="killed") in ENDED
    assert run_on(tiny, *often, root="killed") == 0
    assert_same_runs(tiny.folder / "killed", tiny.folder / "whole")
    assert_learning(tiny.folder / "whole")


@pytest.mark.parametrize("bounds", [["max_steps=13", "max_epochs=-1"], ["max_steps=17"]])
def test_runs_that_are_bounded_by_steps_count_each_epoch_once(
    tiny: Tiny, bounds: list[str]
) -> None:
    bounded = [f"--trainer.{bound}" for bound in bounds]
    bounded += ["--model.average={kind: lawa, window: 3, every: 2}"]
    assert run_on(tiny, *bounded, root="whole") == 0
    for step in (5, 10):
        # The checkpoint before is that of the end of an epoch.
        assert run_on(tiny, *bounded, *kill_at(step, "before_step"), root="killed") in ENDED
    assert run_on(tiny, *bounded, root="killed") == 0
    assert_same_runs(tiny.folder / "killed", tiny.folder / "whole")


def test_two_ranks_that_shard_are_killed_and_go_on(tiny: Tiny) -> None:
    sharded = ["--config", str(CONFIGS / "strategy/fsdp2.yaml"), "--trainer.max_epochs=2"]
    sharded += [*LEARNING, "--config", str(CONFIGS / "optimizer/muon.yaml")]
    assert run_on(tiny, *sharded, root="whole", world_size=2) == 0
    for step, phase in ((2, "micro_batch"), (3, "link")):
        killed = run_on(tiny, *sharded, *kill_at(step, phase), root="killed", world_size=2)
        assert killed in ENDED
    assert run_on(tiny, *sharded, root="killed", world_size=2) == 0
    killed, whole = tiny.folder / "killed", tiny.folder / "whole"
    assert (killed / METRICS).read_text() == (whole / METRICS).read_text()
    assert_learning(whole)
    for weights in ("raw", "averaged"):
        both = exported(killed, weights), exported(whole, weights)  # type: ignore[arg-type]
        torch.testing.assert_close(*both, atol=0, rtol=0)


def test_kills_amid_epochs_of_focus_change_no_bit(tiny: Tiny) -> None:
    focused = ["--model.regularizers.entropy_source=reference", "--data.order=LearnFocusReview"]
    # Evaluates other weights than it trains.
    focused += ["--config", str(CONFIGS / "optimizer/schedule_free.yaml")]
    focused += ["--trainer.max_epochs=2"]
    assert run_on(tiny, *focused, root="whole") == 0
    for step, phase in ((4, "epoch_end"), (7, "batch_end")):
        assert run_on(tiny, *focused, *kill_at(step, phase), root="killed") in ENDED
    assert run_on(tiny, *focused, root="killed") == 0
    assert_same_runs(tiny.folder / "killed", tiny.folder / "whole")
