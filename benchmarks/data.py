"""Time from text to batches: tokenizing and packing, and setup of the data module.

The corpus is the whole corpus of the quickstart. Each measurement runs in a fresh process, because
Python and libraries cache what they read; imports are excluded. A cold start reads, splits,
tokenizes, packs and writes the cache; a cached start reads the cache.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks import harness
from benchmarks.live_fit import TOKENIZER

T = TypeVar("T")

CASES = ("tokenize and pack", "cold start", "cached start")


def data(
    rounds: int = 3,
    threads: int = 1,
    out: str = harness.RESULTS,
    corpus: str = "registry:hpo",
    block_size: int = 256,
) -> Path:
    """Time tokenizing, packing and setup of the data module.

    Args:
        rounds: Number of timed rounds, each with three fresh processes.
        threads: Number of CPU threads of PyTorch; tokenizing uses one process.
        out: Folder for the results.
        corpus: Corpus, as in ``data.corpus``.
        block_size: Tokens per block.
    """
    settings = {**locals()}
    harness.prepare(threads)
    with TemporaryDirectory() as folder:
        in_fresh_process(cold_start, corpus, block_size, f"{folder}/warm", threads)
        measured: dict[str, list[tuple[float, int]]] = {case: [] for case in CASES}
        for number in range(rounds):
            for case, measure in {
                CASES[0]: partial(tokenize_and_pack, corpus, block_size, threads),
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


def tokenize_and_pack(corpus: str, block_size: int, threads: int) -> tuple[float, int]:
    """Return seconds and tokens of tokenizing and packing documents in memory."""
    import datasets  # noqa: F401 (so that its import is not timed)

    from lit_entrodrop.data.preparing.preparation import prepare_split
    from lit_entrodrop.data.preparing.stored_documents import store_documents
    from lit_entrodrop.data.reading_options import ReadingOptions
    from lit_entrodrop.data.sources import read_corpus
    from lit_entrodrop.model.loading import load_tokenizer

    harness.prepare(threads)
    documents = store_documents(read_corpus([corpus], ReadingOptions()), seed=0)
    tokenizer = load_tokenizer(TOKENIZER)
    packed = []
    seconds = harness.stopwatch(
        lambda: packed.append(prepare_split(documents, tokenizer, block_size))
    )
    return seconds, packed[0].blocks.num_tokens


def cold_start(corpus: str, block_size: int, cache_dir: str, threads: int) -> tuple[float, int]:
    """Return seconds and tokens of the setup of a data module."""
    from lit_entrodrop.data import TextDataModule

    harness.prepare(threads)
    module = TextDataModule(corpus, TOKENIZER, block_size, validation=0.015, cache_dir=cache_dir)
    seconds = harness.stopwatch(module.setup)
    counts = [module.blocks(split).num_tokens for split in ("train", "validation")]
    return seconds, sum(counts)


def in_fresh_process(function: Callable[..., T], *args: Any) -> T:
    """Return the result of a function, computed in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


if __name__ == "__main__":
    harness.command_line(data)
