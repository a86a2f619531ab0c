import os
import resource
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_entrodrop.training.callbacks import Checkpoints
from tests.helpers.processes import run_cli_ranks
from tests.helpers.tiny import Tiny


class FullDisk(L.Callback):
    """Leaves no room for more than some bytes once a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step:
            # A write beyond then fails, as it does on a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def distance_to_second_epoch(_: Checkpoints, trainer: L.Trainer) -> float:
    return abs(trainer.global_step - 20.0)


def test_the_last_are_kept_and_the_best(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which epoch trains best depends on the machine: the second is made the best.
    monkeypatch.setattr(Checkpoints, "_score", distance_to_second_epoch)
    run = tiny.run("fit", "--trainer.max_epochs=5", "--checkpoints.keep_last=2")
    best = "step=20.ckpt"
    assert (run / "checkpoints" / "best.ckpt").readlink().name == best
    assert kept(run) == sorted([best, "best.ckpt", "last.ckpt", "step=40.ckpt", "step=50.ckpt"])
    assert (run / "checkpoints" / "last.ckpt").readlink().name == "step=50.ckpt"


@pytest.mark.parametrize(("monitor", "score"), [("exam/loss", 2.0), (None, float("inf"))])
def test_best_is_restored_for_the_same_metric_only(
    tmp_path: Path, monitor: str | None, score: float
) -> None:
    (tmp_path / "step=10.ckpt").touch()
    resumed = Checkpoints(monitor=monitor)
    resumed.folder = tmp_path
    resumed.load_state_dict({"best_score": 2.0, "best": "step=10.ckpt", "monitor": "exam/loss"})
    assert resumed.best_score == score


def test_step_that_was_kept_before_is_not_written_over(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.max_epochs=3", "--checkpoints.keep_last=5")
    first = run / "checkpoints" / "step=10.ckpt"
    tiny.run("fit", f"--ckpt_path={first}", "--trainer.max_epochs=3", "--checkpoints.keep_last=5")
    assert (run / "checkpoints" / "last.ckpt").readlink().name == "step=30-v2.ckpt"
    weights = [
        torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
        for name in ("step=30.ckpt", "step=30-v2.ckpt")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_a_killed_run_left_unfinished_is_cleared_away(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.max_epochs=1")
    (run / "checkpoints" / "step=20.ckpt.part").write_text("torn")
    shards = run / "checkpoints" / "step=21.ckpt.part"
    shards.mkdir()
    (shards / "torn").write_text("torn")
    tiny.run("fit", "--ckpt_path=last")
    assert kept(run) == ["best.ckpt", "last.ckpt", "step=10.ckpt", "step=20.ckpt"]


@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_full_disk_leaves_the_checkpoint_before_and_says_so(tiny: Tiny, strategy: str) -> None:
    run = tiny.folder / "run"
    settings = [f"--trainer.default_root_dir={run}", "--trainer.devices=1"]
    full = [f"--trainer.callbacks+={__name__}.FullDisk", "--trainer.callbacks.step=20"]
    words = ["fit", *tiny.config(), *settings, *full, f"--trainer.strategy={strategy}"]
    (rank,) = run_cli_ranks(*words, folder=tiny.folder, world_size=1)
    assert rank.returncode == 1
    said = rank.stdout.splitlines()[-1]
    assert "checkpoint: could not be written" in said
    assert "free disk space and resume" in said
    assert f"last checkpoint: {run}/checkpoints/step=10.ckpt" in said
    assert kept(run) == ["best.ckpt", "last.ckpt", "step=10.ckpt"]
    (rank,) = run_cli_ranks(
        *["fit", *tiny.config(), *settings, f"--trainer.strategy={strategy}", "--ckpt_path=last"],
        folder=tiny.folder,
        world_size=1,
    )
    assert rank.returncode == 0, rank.stdout
    assert "step=20.ckpt" in kept(run)


def test_torn_checkpoint_is_refused_by_name(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.run("fit", "--trainer.max_epochs=1")
    last = (run / "checkpoints" / "last.ckpt").resolve()
    os.truncate(last, last.stat().st_size // 2)
    with pytest.raises(SystemExit) as ended:
        tiny.run("fit", "--ckpt_path=last")
    assert "step=10.ckpt, which cannot be read" in str(ended.value.code)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep_last": 0}, "keep_last: expected a whole number of at least 1, got 0"),
        ({"every_n_train_steps": 0}, "every_n_train_steps: expected a whole number of at least 1"),
        ({"keep_last": "2"}, "keep_last: expected a whole number, got '2'"),
        ({"mode": "best"}, "mode: expected min or max, got 'best'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^checkpoints.{expected}"):
        Checkpoints(**settings)
