"""The benchmark: prepare, let all train in turns, report."""

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
    words: Sequence[int] = (4096, 49152),
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
        words: vocabulary sizes to compare at.
        shape: the rest of the model, and the batch.
        arms: whom to compare, some of ours, ours_entrodrop, hf_trainer and trl_sft.
        rounds: turns of each that count; one more comes before.
        turn: optimizer steps of a turn; everybody logs once in a turn.
        threads: CPU threads of each; 2, where most other benchmarks take 1, as products gain by it.
        env: virtual environment of the peers, made from PyPI if it is not there; null for the
            environment of this process.
        only_prepare: make that environment and stop.
        out: folder of the results.

    Raises:
        ValueError: if an arm is unknown.
        RuntimeError: if a process fails, or they do not train the same thing.
    """
    if unknown := set(arms) - set(ARMS):
        raise ValueError(f"arms: expected some of {', '.join(ARMS)}, got {sorted(unknown)}")
    python = Path(sys.executable) if env is None else prepare_environment(Path(env))
    if only_prepare:
        return
    settings: dict[str, Any] = {
        "words": list(words),
        "shape": asdict(shape),
        "rounds": rounds,
        "turn": turn,
        "threads": threads,
    }
    prepare(threads)
    rows: list[dict[str, Any]] = []
    for vocabulary in words:
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
    """Make the environment of the peers, unless it holds what is required; return its Python."""
    python, mark = env.absolute() / "bin" / "python", env / "peers-requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not mark.exists() or mark.read_text() != wanted:
        print(f"Installing {REQUIREMENTS.name} into {env}: some minutes, once", flush=True)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
        subprocess.run(list(map(str, install)), check=True)
        mark.write_text(wanted)
    return python
