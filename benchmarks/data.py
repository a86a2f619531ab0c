"""How fast text becomes batches: tokenising and packing, and the start of the data module.

The corpus is that of the quickstart, all of it. Each measurement is made in a fresh process, as
Python and the libraries keep what they have read once; importing them does not count. A cold start
reads, splits, tokenises, packs and writes the cache; a cached start opens what a cold one left.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import harness
from benchmarks.live_fit import TOKENIZER

CASES = ("tokenise and pack", "cold start", "cached start")


def data(
    rounds: int = 3,
    threads: int = 1,
    out: str = harness.RESULTS,
    corpus: str = "registry:hpo",
    block_size: int = 256,
) -> Path:
    """Time tokenising, packing and the start of the data module.

    Args:
        rounds: timed rounds, each of three fresh processes.
        threads: CPU threads of PyTorch; tokenising uses one process.
        out: folder of the results.
        corpus: as in ``data.corpus``.
        block_size: tokens in a block.
    """
    settings = {**locals()}
    harness.prepare(threads)
    with TemporaryDirectory() as folder:
        in_fresh_process(cold_start, corpus, block_size, f"{folder}/warm", threads)
        measured: dict[str, list[tuple[float, int]]] = {case: [] for case in CASES}
        for number in range(rounds):
            for case, measure in {
                CASES[0]: partial(tokenise_and_pack, corpus, block_size, threads),
                CASES[1]: partial(cold_start, corpus, block_size, f"{folder}/{number}", threads),
                CASES[2]: partial(cold_start, corpus, block_size, f"{folder}/warm", threads),
            }.items():
                measured[case].append(in_fresh_process(measure))
    rows = [describe(case, *measured[case]) for case in CASES]
    return harness.save("data", settings, rows, out)


def describe(case: str, *measured: tuple[float, int]) -> dict[str, Any]:
    """Return the row of a case, from the seconds and tokens of each round."""
    time, tokens = harness.summary([seconds for seconds, _ in measured]), measured[0][1]
    return {
        "case": case,
        "seconds": time["median"],
        "seconds_iqr": time["iqr"],
        "tokens": tokens,
        "tokens_per_s": tokens / time["median"],
        "rounds": time["rounds"],
    }


def tokenise_and_pack(corpus: str, block_size: int, threads: int) -> tuple[float, int]:
    """Return seconds and tokens of tokenising and packing documents that are in memory."""
    import datasets  # noqa: F401 (imported late by the tokenising, which is not to be timed)

    from lit_entrodrop.data.preparing import prepare_split
    from lit_entrodrop.data.sources import read_corpus
    from lit_entrodrop.model.loading import load_tokenizer

    harness.prepare(threads)
    documents, tokenizer = read_corpus([corpus], "text"), load_tokenizer(TOKENIZER)
    packed = []
    seconds = harness.stopwatch(
        lambda: packed.append(prepare_split(documents, tokenizer, block_size))
    )
    return seconds, len(packed[0].blocks.tokens)


def cold_start(corpus: str, block_size: int, cache_dir: str, threads: int) -> tuple[float, int]:
    """Return seconds and training tokens of the start of a data module; cold if the cache is."""
    from lit_entrodrop.data import TextDataModule

    harness.prepare(threads)
    module = TextDataModule(corpus, TOKENIZER, block_size, validation=0.015, cache_dir=cache_dir)
    seconds = harness.stopwatch(module.setup)
    counts = [len(module._packed(split).blocks.tokens) for split in ("train", "validation")]
    return seconds, sum(counts)


def in_fresh_process(function: Callable[..., tuple[float, int]], *args: Any) -> tuple[float, int]:
    """Return the result of a function that runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


if __name__ == "__main__":
    harness.command_line(data)
