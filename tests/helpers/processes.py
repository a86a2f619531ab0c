"""Real processes: several ranks over gloo, and a child that may be killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp


def run_rank(
    rank: int, function: Callable[..., None], folder: Path, world_size: int, arguments: Any
) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    function(rank, *arguments)
    dist.destroy_process_group()


def run_ranks(
    function: Callable[..., None], folder: Path, *arguments: Any, world_size: int = 2
) -> None:
    """Call a function with rank and arguments in as many processes of one group."""
    (folder / "meet").unlink(missing_ok=True)
    context = mp.start_processes(
        run_rank,
        args=(function, folder, world_size, arguments),
        nprocs=world_size,
        join=False,
        start_method="fork",
    )
    assert context is not None
    assert context.join(timeout=60) or context.join(timeout=60)


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter and return what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
        timeout=120,
        check=False,
    )


def fork(function: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a child that calls a function."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    return child


def kill(process: multiprocessing.process.BaseProcess) -> None:
    """End a child as `kill -9` does."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(timeout=60)
    assert process.exitcode is not None
