"""The benchmark: prepare, train alternately, report."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness import RESULTS, prepare, save
from benchmarks.peers.process import ARMS, compare
from benchmarks.peers.report import check_losses, table, verdicts
from benchmarks.peers.training import Shape, prepare_training

REQUIREMENTS = Path(__file__).parents[1] / "requirements-peers.txt"


def peers(
    vocab_sizes: Sequence[int] = (4096, 49152),
    shape: Shape = Shape(),  # noqa: B008
    arms: Sequence[str] = tuple(ARMS),
    rounds: int = 5,
    turn: int = 5,
    threads: int = 2,
    env: str | None = ".venv-peers",
    only_prepare: bool = False,
    out: str = RESULTS,
) -> None:
    """Compare training steps: tokens per second and peak memory of ours, HF Trainer and TRL.

    Args:
        vocab_sizes: Vocabulary sizes to compare at.
        shape: Other sizes of the model, and of the batch.
        arms: Trainers to compare: ours, ours_entrodrop, hf_trainer, trl_sft.
        rounds: Number of timed turns of each trainer, after an untimed one.
        turn: Optimizer steps per turn; each trainer logs once per turn.
        threads: Number of CPU threads of each trainer; 2, because matrix products profit from them.
        env: Virtual environment of the peers, created from PyPI if missing; null for the
            environment of this process.
        only_prepare: Whether to create the environment and stop.
        out: Folder for the results.

    Raises:
        ValueError: If an arm is unknown.
        RuntimeError: If a process fails, or if the losses differ.
    """
    if unknown := set(arms) - set(ARMS):
        raise ValueError(f"arms: expected some of {', '.join(ARMS)}, got {sorted(unknown)}")
    python = Path(sys.executable) if env is None else prepare_environment(Path(env))
    if only_prepare:
        return
    settings: dict[str, Any] = {
        "vocab_sizes": list(vocab_sizes),
        "shape": asdict(shape),
        "rounds": rounds,
        "turn": turn,
        "threads": threads,
    }
    prepare(threads)
    rows: list[dict[str, Any]] = []
    for vocabulary in vocab_sizes:
        with TemporaryDirectory(prefix="peers-") as work:
            shared = prepare_training(Path(work), vocabulary, shape, turn, (rounds + 1) * turn + 1)
            results = compare(Path(work), arms, rounds, threads, python)
            settings["versions"] = {name: result.versions for name, result in results.items()}
            tokens = turn * shared["batch_size"] * shared["block_size"]
            rows += table(vocabulary, tokens, results)
    save("peers", settings, rows, out)
    print("\n".join(verdicts(rows)))
    check_losses(rows)


def prepare_environment(env: Path) -> Path:
    """Create the environment of the peers if needed; return its Python interpreter."""
    python, mark = env.absolute() / "bin" / "python", env / "peers-requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not mark.exists() or mark.read_text() != wanted:
        print(f"Installing {REQUIREMENTS.name} into {env} (once, some minutes)", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
        subprocess.run(list(map(str, install)), check=True)
        mark.write_text(wanted)
    return python
