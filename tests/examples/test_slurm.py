"""The batch script with real ranks, and a fake SLURM that starts and requeues them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import CONFIGS, Tiny, build_tokenizer, texts, write_corpus

SCRIPT = CONFIGS.parent / "examples" / "slurm" / "fit.sbatch"
# One node with two tasks, which are forked because imports take most of the time.
SRUN = f"""#!{sys.executable}
import multiprocessing, os, sys
# A package may have installed a folder of the same name.
sys.path.insert(0, os.getcwd())
from lit_entrodrop.cli.main import main

def run(task):
    os.environ |= {{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0"}}
    from lightning.pytorch.utilities import rank_zero_only
    rank_zero_only.rank = task
    main(sys.argv[2:])

assert sys.argv[1] == "lit-entrodrop"
context = multiprocessing.get_context("fork")
tasks = [context.Process(target=run, args=(task,)) for task in (0, 1)]
for task in tasks:
    task.start()
for task in tasks:
    task.join()
# A task ended by a signal has a negative status.
sys.exit(max(abs(task.exitcode) for task in tasks))
"""
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "lit-entrodrop",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "127.0.0.1",
}


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

    def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPT), *settings, *arguments],
            cwd=CONFIGS.parent,
            env={**os.environ, **JOB, "PATH": f"{programs}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
            check=False,
        )

    over = ["--trainer.callbacks+=tests.helpers.plugins.TellToEnd", "--trainer.callbacks.rank=1"]
    ended = submit(*over, "--trainer.callbacks.step=1", "--trainer.callbacks.name=SIGUSR1")
    assert ended.returncode == 143, ended.stdout
    assert requeued.read_text() == "requeue 4711\n"
    assert (run / "checkpoints" / "last.ckpt").readlink().name == "step=3.ckpt"
    resumed = submit()
    assert resumed.returncode == 0, resumed.stdout
    assert read_metrics(run).index[-1] == 5, resumed.stdout
