"""The batch script with real ranks, and a fake SLURM that starts and requeues them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lit_entrodrop.cli.main import main
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.processes import fork, kill
from tests.helpers.tiny import CONFIGS, Tiny, build_tokenizer, texts, write_corpus

SCRIPT = CONFIGS.parent / "examples" / "slurm" / "fit.sbatch"
# It hands its words and its environment over to the test, which runs the tasks.
SRUN = f"""#!{sys.executable} -S
import json, os, sys
folder = os.path.dirname(sys.argv[0])
with open(folder + "/job", "w") as job:
    json.dump([sys.argv[1:], dict(os.environ)], job)
with open(folder + "/status") as status:
    sys.exit(int(status.read()))
"""
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "lit-entrodrop",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "127.0.0.1",
}


def run_tasks(words: list[str], environment: dict[str, str]) -> int:
    """Run one node with two tasks, and return the status that `srun` would end with."""
    tasks = [fork(_run_task, task, words, environment) for task in (0, 1)]
    for task in tasks:
        task.join(timeout=150)
        if task.exitcode is None:
            kill(task)
    # A task ended by a signal has a negative status.
    return max(abs(task.exitcode or 0) for task in tasks)


def _run_task(task: int, words: list[str], environment: dict[str, str]) -> None:
    os.environ |= environment
    os.environ |= {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0"}
    os.chdir(CONFIGS.parent)
    # Lightning reads it from the environment when it is imported.
    rank_zero_only.rank = task  # type: ignore[attr-defined]
    main(words)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts(60))
    return Tiny(tmp_path, build_tokenizer(tmp_path / "tokenizer"), corpus)


def test_a_job_whose_time_is_over_queues_again_and_goes_on(tiny: Tiny) -> None:
    programs, requeued = tiny.folder / "bin", tiny.folder / "requeued"
    programs.mkdir()
    write_program(programs / "srun", SRUN)
    write_program(programs / "scontrol", f'#!/bin/sh\necho "$@" >> {requeued}\n')
    run = tiny.folder / "run"
    settings = [*tiny.config(), "--config", str(CONFIGS / "strategy" / "fsdp2.yaml")]
    settings += ["--trainer.max_epochs=1", f"--trainer.default_root_dir={run}"]

    for pipe in ("job", "status"):
        os.mkfifo(programs / pipe)

    def submit(*arguments: str) -> int:
        script = subprocess.Popen(
            ["bash", str(SCRIPT), *settings, *arguments],
            env={**os.environ, **JOB, "PATH": f"{programs}:{os.environ['PATH']}"},
        )
        (program, *words), environment = json.loads((programs / "job").read_text())
        assert program == "lit-entrodrop"
        (programs / "status").write_text(str(run_tasks(words, environment)))
        return script.wait(timeout=60)

    over = ["--trainer.callbacks+=tests.helpers.plugins.TellToEnd", "--trainer.callbacks.rank=1"]
    ended = submit(*over, "--trainer.callbacks.step=1", "--trainer.callbacks.name=SIGUSR1")
    assert ended == 143
    assert requeued.read_text() == "requeue 4711\n"
    assert (run / "checkpoints" / "last.ckpt").readlink().name == "step=3.ckpt"
    assert submit() == 0
    assert read_metrics(run).index[-1] == 5
