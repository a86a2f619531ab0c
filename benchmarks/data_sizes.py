"""Time and memory from text to packed blocks, for corpora of many sizes.

Each corpus is made from sentences of the quickstart's corpus, and each measurement runs in a fresh
process; imports are excluded. Memory is the peak of the resident set of the main process.
"""

import json
import os
import random
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks import harness, memory
from benchmarks.data import in_fresh_process
from benchmarks.live_fit import TOKENIZER

SMALL = 200  # characters of a small document
MEDIUM = 2_000


def data_sizes(
    megabytes: tuple[int, ...] = (10, 50, 200),
    small_documents: int = 200_000,
    long_document: int = 50,
    num_proc: int = 1,
    block_size: int = 512,
    compression: str = "",
    threads: int = 1,
    out: str = harness.RESULTS,
) -> Path:
    """Measure the preparation of corpora of many sizes.

    Args:
        megabytes: Sizes of corpora with documents of 2,000 characters on average.
        small_documents: Expected number of documents in another corpus, of 200 characters on
            average; there are fewer, as each is filled up with whole sentences.
        long_document: Size of a corpus with a single document, in MB.
        num_proc: Maximum number of processes for tokenizing.
        block_size: Tokens per block.
        compression: Suffix of compressed corpora, .gz, .bz2 or .zst; none by default.
        threads: Number of CPU threads of PyTorch.
        out: Folder for the results.
    """
    settings = {**locals()}
    cases = {f"{size} MB": (size * 10**6, MEDIUM) for size in megabytes}
    if small_documents:
        cases[f"{small_documents * SMALL / 1e6:.0f} MB of small documents"] = (
            small_documents * SMALL,
            SMALL,
        )
    if long_document:
        cases[f"one document of {long_document} MB"] = (long_document * 10**6, 0)
    rows = []
    for case, (size, mean) in cases.items():
        with TemporaryDirectory() as folder:
            corpus = write_corpus(Path(folder) / f"corpus.jsonl{compression}", size, mean)
            measured = in_fresh_process(prepare_corpus, str(corpus), block_size, num_proc, threads)
        rows.append({"case": case, **measured})
        print(rows[-1], flush=True)
    return harness.save("data_sizes", settings, rows, out)


def write_corpus(path: Path, size: int, mean: int) -> Path:
    """Write documents of a mean length, or one document if it is 0, of some characters in all.

    The suffix of the path chooses a compression.
    """
    import pyarrow

    from lit_entrodrop.data.corpora.registry import load_corpus

    sentences = [sentence for text in load_corpus("hpo") for sentence in text.split(". ")]
    random_ = random.Random(0)
    with TextIOWrapper(pyarrow.output_stream(path)) as file:
        while size > 0:
            wanted = min(size, int(random_.expovariate(1 / mean)) + 20) if mean else size
            parts: list[str] = []
            while wanted > 0:
                parts.append(random_.choice(sentences))
                wanted -= len(parts[-1]) + 2
            text = ". ".join(parts)
            size -= len(text)
            file.write(json.dumps({"text": text}) + "\n")
    return path


def prepare_corpus(corpus: str, block_size: int, num_proc: int, threads: int) -> dict[str, Any]:
    """Return the cost of the setup of a data module."""
    import datasets  # noqa: F401 (so that its import is not measured)

    from lit_entrodrop.data import TextDataModule

    harness.prepare(threads)
    with TemporaryDirectory() as folder:
        module = TextDataModule(
            corpus,
            TOKENIZER,
            block_size,
            validation=0.0,
            clean_train_blocks=0,
            num_proc=num_proc,
            cache_dir=folder,
        )
        module.tokenizer("loaded before the measurement")
        before, start, cpu = memory.reset_rss_peak(), perf_counter(), cpu_seconds()
        module.setup()
        seconds, cpu, peak = perf_counter() - start, cpu_seconds() - cpu, memory.rss_peak()
        size = Path(corpus).stat().st_size / 1e6
        return {
            "megabytes": size,
            "documents": module.splits["train"].documents,
            "tokens": module.blocks("train").num_tokens,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "mb_per_cpu_s": size / cpu,
            "peak_mb": (peak - before) / 1e6,
        }


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children, in seconds."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    harness.command_line(data_sizes)
