"""Real processes that receive a signal to end."""

import re
from pathlib import Path

import pytest
import torch

from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.training import preemption
from tests.helpers.processes import describe_ranks, run_cli_ranks
from tests.helpers.runs import exported
from tests.helpers.tiny import Tiny

STATUS = {"SIGTERM": 143, "SIGUSR1": 143, "SIGINT": 130}
EVERYTHING = [
    "--trainer.accumulate_grad_batches=2",
    "--trainer.max_epochs=3",
    "--model.regularizers+=regularizers.EntroDrop",
    "--ckpt_path=last",
]


def run_on(tiny: Tiny, *arguments: str, root: str, world_size: int = 1) -> tuple[list[int], str]:
    """Run `fit` on several ranks; return their exit statuses, and all that they said."""
    place = [f"--trainer.default_root_dir={tiny.folder / root}", f"--trainer.devices={world_size}"]
    words = ["fit", *tiny.config(), *EVERYTHING, *arguments, *place]
    ranks = run_cli_ranks(*words, folder=tiny.folder, world_size=world_size)
    return [rank.returncode for rank in ranks], describe_ranks(ranks)


def signal_before(rank: int, step: int, name: str = "SIGTERM") -> list[str]:
    """Return the arguments with which a rank receives a signal before a step."""
    given = {"rank": rank, "step": step, "name": name}
    return [
        "--trainer.callbacks+=tests.helpers.plugins.TellToEnd",
        *(f"--trainer.callbacks.{key}={value}" for key, value in given.items()),
    ]


@pytest.mark.parametrize(("rank", "name"), [(0, "SIGTERM"), (1, "SIGINT")])
def test_ranks_end_together_after_a_signal_to_one(tiny: Tiny, rank: int, name: str) -> None:
    ddp = "--trainer.strategy=ddp"
    statuses, said = run_on(tiny, ddp, *signal_before(rank, 0, name), root="signaled", world_size=2)
    assert statuses == 2 * [STATUS[name]], said
    # Told before step 0, agreed on within it, heard within the next.
    for each in (0, 1):
        assert f"rank {each} ends after 2 steps: SIGTERMException" in said
    assert re.search(rf"{name}: ended after step 2; last checkpoint: .*/step=2\.ckpt\. To ", said)


@pytest.fixture(scope="module")
def whole(tiny_module: Tiny) -> Path:
    statuses, said = run_on(tiny_module, root="whole")
    assert statuses == [0], said
    return tiny_module.folder / "whole"


@pytest.mark.parametrize(("step", "name"), [(1, "SIGTERM"), (4, "SIGINT"), (7, "SIGUSR1")])
def test_a_run_that_a_signal_ends_resumes_with_the_same_bits(
    tiny_module: Tiny, whole: Path, step: int, name: str
) -> None:
    """Within the first epoch of five steps, in its last step, and within the second."""
    root = f"signaled{step}"
    statuses, said = run_on(tiny_module, *signal_before(0, step, name), root=root)
    assert statuses == [STATUS[name]], said
    assert f"{name}: ended after step {step + 1}; last checkpoint: " in said
    assert f"/step={step + 1}.ckpt. To resume, run the same command with --ckpt_path last" in said
    statuses, said = run_on(tiny_module, root=root)
    assert statuses == [0], said
    signaled = tiny_module.folder / root
    assert (signaled / METRICS).read_text() == (whole / METRICS).read_text()
    torch.testing.assert_close(exported(signaled), exported(whole), atol=0, rtol=0)


def test_second_interrupt_stops_at_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "REPEAT_SECONDS", -1.0)
    twice = [*signal_before(0, 7, "SIGINT"), *signal_before(0, 7, "SIGINT")]
    statuses, said = run_on(tiny, *twice, root="signaled")
    assert statuses == [130], said
    assert "SIGINT: the run ends after this step; Ctrl-C again stops it at once" in said
    assert re.search(r"SIGINT: ended after step 7; last checkpoint: .*/step=5\.ckpt\. To", said)
    assert said.endswith("lit-entrodrop fit: interrupted\n")


def test_slurm_puts_the_job_back_in_the_queue(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, calls = tiny.folder / "bin", tiny.folder / "calls"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    statuses, said = run_on(tiny, *signal_before(0, 1, "SIGTERM"), root="ended")
    assert statuses == [143], said
    assert not calls.exists()
    statuses, said = run_on(tiny, *signal_before(0, 3, "SIGUSR1"), root="ended")
    assert calls.read_text() == "requeue 12\n", said
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    run_on(tiny, *signal_before(0, 5, "SIGUSR1"), root="ended")
    assert calls.read_text() == "requeue 12\nrequeue 3_4\n"


def test_a_queue_that_refuses_is_reported(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tiny.folder))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    statuses, said = run_on(tiny, *signal_before(0, 1, "SIGUSR1"), root="ended")
    assert statuses == [143]
    assert "SLURM job 12 could not be requeued" in said
