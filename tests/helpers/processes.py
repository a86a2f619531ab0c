"""Real processes: several ranks over gloo, and a child that may be killed."""

import faulthandler
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.utilities import rank_zero_only

from lit_entrodrop.cli.main import main


def run_rank(
    rank: int, function: Callable[..., None], folder: Path, world_size: int, arguments: Any
) -> None:
    _settle()
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
    deadline = time.monotonic() + 240
    # It returns when one of them ends.
    while not context.join(timeout=10):
        assert time.monotonic() < deadline, "a rank does not end"


def run_cli_ranks(
    *arguments: str, folder: Path, world_size: int = 2, timeout: float = 240
) -> list[subprocess.CompletedProcess[str]]:
    """Run the program on several ranks, each in the environment that torchrun would give it.

    They are forked, as a fresh interpreter takes seconds to import what this one has imported.
    They cannot compile where this process has: Inductor's workers are lost in a fork.

    Args:
        arguments: of the program.
        folder: where what each rank says is kept.
        world_size: number of ranks.
        timeout: seconds after which those that still run say where they are, and end.

    Returns:
        How each rank ended; all it said, warnings and errors included, is its ``stdout``.
    """
    port, deadline = free_port(), time.monotonic() + timeout
    logs = [folder / f"rank{rank}-{port}.log" for rank in range(world_size)]
    ranks = [
        fork(_run_cli_rank, arguments, rank, world_size, port, log) for rank, log in enumerate(logs)
    ]
    while any(rank.exitcode is None for rank in ranks) and time.monotonic() < deadline:
        if any(rank.exitcode for rank in ranks):
            # Others may wait for it in vain.
            deadline = min(deadline, time.monotonic() + 15)
        wait([rank.sentinel for rank in ranks if rank.exitcode is None], timeout=1)
    for rank in ranks:
        if rank.exitcode is None:
            kill(rank, signal.SIGABRT)
    return [
        subprocess.CompletedProcess(arguments, rank.exitcode or 0, log.read_text())
        for rank, log in zip(ranks, logs, strict=True)
    ]


def describe_ranks(ranks: Sequence[subprocess.CompletedProcess[str]]) -> str:
    """Return the exit status and the output of each rank."""
    return "\n".join(
        f"rank {rank} ended with {each.returncode}:\n{each.stdout}"
        for rank, each in enumerate(ranks)
    )


def run_cli_group(arguments: Sequence[str], log: Path, world_size: int = 1) -> int:
    """Run the program in a process group of its own, as `verify_resume.run_program` does.

    Args:
        arguments: of the program.
        log: where what the last rank to write says is kept.
        world_size: number of ranks.

    Returns:
        The exit status of the first rank, negative if a signal ended it.
    """
    leader = fork(_lead_group, tuple(arguments), log, world_size)
    leader.join(timeout=120)
    if leader.exitcode is None:
        assert leader.pid is not None
        os.killpg(leader.pid, signal.SIGKILL)
        leader.join(timeout=60)
    assert leader.exitcode is not None
    return leader.exitcode


def _lead_group(arguments: tuple[str, ...], log: Path, world_size: int) -> None:
    os.setsid()
    port = free_port()
    for rank in range(1, world_size):
        fork(_run_cli_rank, arguments, rank, world_size, port, log.with_suffix(f".{rank}"))
    _run_cli_rank(arguments, 0, world_size, port, log)


def _run_cli_rank(
    arguments: tuple[str, ...], rank: int, world_size: int, port: int, log: Path
) -> None:
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    faulthandler.enable(sys.stdout)
    os.environ |= torchrun_environment(rank, world_size, port)
    # Lightning reads it from the environment when it is imported.
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    main(arguments)
    if dist.is_initialized():
        dist.destroy_process_group()


def torchrun_environment(rank: int, world_size: int, port: int = 0) -> dict[str, str]:
    """Return the environment variables that torchrun would set on one machine."""
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter and return what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
        timeout=240,
        check=False,
    )


def run_forked(
    function: Callable[..., object], *arguments: Any, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Call a function in a fork of this process, and return how it ended and all it said.

    A fresh interpreter would take seconds to import what this one has imported.
    """
    with tempfile.TemporaryFile("w+") as said:
        child = fork(_run_apart, function, arguments, cwd, said.fileno())
        child.join(timeout=240)
        if child.exitcode is None:
            kill(child)
        assert child.exitcode is not None
        said.seek(0)
        return subprocess.CompletedProcess(arguments, child.exitcode, said.read())


def _run_apart(
    function: Callable[..., object], arguments: tuple[Any, ...], cwd: Path, said: int
) -> None:
    os.chdir(cwd)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    # pytest replaces both by files of its own.
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    function(*arguments)


def fork(function: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a child that calls a function."""
    arguments = (function, *arguments)
    child = multiprocessing.get_context("fork").Process(target=_begin, args=arguments)
    child.start()
    return child


def _begin(function: Callable[..., None], *arguments: Any) -> None:
    _settle()
    function(*arguments)


def _settle() -> None:
    """Prepare a process that was forked, while there is one thread alone.

    Its garbage collector does not walk, and so copy, all that the parent holds. PyTorch replaces
    the thread pool that a fork has lost at the next call, unguarded: threads that call meanwhile
    find none.
    """
    gc.freeze()
    torch.set_num_threads(torch.get_num_threads())


def kill(
    process: multiprocessing.process.BaseProcess, signum: signal.Signals = signal.SIGKILL
) -> None:
    """End a child as `kill -9` does."""
    assert process.pid is not None
    os.kill(process.pid, signum)
    process.join(timeout=60)
    assert process.exitcode is not None
