"""The processes that train: how each is started, has its turns and ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, interleaved
from benchmarks.peers_workers.turns import ANSWERS


class Arm(NamedTuple):
    """One of those that are compared.

    Args:
        module: what runs in its process.
        arguments: of that module, beside the folder.
        is_ours: whether it runs in our environment.
    """

    module: str
    arguments: tuple[str, ...] = ()
    is_ours: bool = False


ARMS = {
    "ours": Arm("ours", is_ours=True),
    "ours_entrodrop": Arm("ours", ("regularizers/entrodrop.yaml",), is_ours=True),
    "hf_trainer": Arm("hf"),
    "trl_sft": Arm("trl_sft"),
}


class Result(NamedTuple):
    """What an arm has shown.

    Args:
        turns: seconds of each turn; equal places of several arms belong to the same round.
        seconds: seconds of each step.
        peak: of the resident set, bytes.
        losses: mean training loss of each turn, the first included, which does not count else.
        versions: of the packages that it ran with.
    """

    turns: list[float]
    seconds: list[float]
    peak: int
    losses: list[float]
    versions: dict[str, str]


class Worker:
    """A process that trains in turns.

    Args:
        folder: its own folder, within that of the training.
        command: how to start it.
        threads: its CPU threads.
    """

    def __init__(self, folder: Path, command: Sequence[str], threads: int) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.seconds: list[list[float]] = []
        self.peak = 0
        reading, writing = os.pipe()
        self.answers = os.fdopen(reading)
        variables = {
            ANSWERS: str(writing),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "LIT_ENTRODROP_TRACEBACK": "1",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[writing],
            )
        os.close(writing)

    def ready(self) -> None:
        """Wait until the process may have its first turn."""
        self._hear()

    def turn(self) -> None:
        """Let the process train for a turn."""
        self._allow()
        self.seconds.append(self._hear()["seconds"])

    def finish(self, turns: list[float]) -> Result:
        """Let the process end, and return all that it has shown, but for the first turn."""
        self._allow()
        if self.process.wait():
            raise self._failure()
        seconds = [second for turn in self.seconds[1:] for second in turn]
        told = json.loads((self.folder / "result.json").read_text())
        return Result(turns, seconds, self.peak, told["losses"], told["versions"])

    def close(self) -> None:
        """End the process, if it still runs."""
        self.process.kill()
        self.process.wait()
        self.answers.close()
        assert self.process.stdin is not None, "it was opened as a pipe"
        self.process.stdin.close()

    def _allow(self) -> None:
        assert self.process.stdin is not None, "it was opened as a pipe"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        self.peak = answer["peak"]
        return answer

    def _failure(self) -> RuntimeError:
        last = "\n".join(self.log.read_text().splitlines()[-20:])
        return RuntimeError(f"{self.folder.name} ended before its time:\n{last}")


@contextmanager
def started(
    work: Path, arms: Sequence[str], threads: int, python: Path
) -> Iterator[dict[str, Worker]]:
    """Start the processes of the arms, all at once, and wait until they are ready."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in arms:
            arm, folder = ARMS[name], work / name
            folder.mkdir()
            interpreter = sys.executable if arm.is_ours else str(python)
            command = [interpreter, "-m", f"benchmarks.peers_workers.{arm.module}", str(folder)]
            workers[name] = Worker(folder, [*command, *arm.arguments], threads)
            stack.callback(workers[name].close)
        for worker in workers.values():
            worker.ready()
        yield workers


def compare(
    work: Path, arms: Sequence[str], rounds: int, threads: int, python: Path
) -> dict[str, Result]:
    """Let the arms train in turns.

    Args:
        work: folder of the training.
        arms: their names.
        rounds: turns that count; one more comes before.
        threads: CPU threads of each.
        python: interpreter of the peers.
    """
    with started(work, arms, threads, python) as workers:
        turns = interleaved({name: workers[name].turn for name in arms}, rounds, warmup=1)
        return {name: workers[name].finish(turns[name]) for name in arms}
