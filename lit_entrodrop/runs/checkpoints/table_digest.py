"""Digest of the table of contents of a folder of shards, the only file without a checksum."""

import hashlib
from pathlib import Path

from lit_entrodrop.runs.writing import write_whole

# Name that PyTorch chooses.
TABLE = ".metadata"
DIGEST = "metadata.blake2b"


def write_digest(checkpoint: Path) -> None:
    """Write the digest of the table of contents, if the checkpoint is a folder of shards."""
    if (table := checkpoint / TABLE).exists():
        write_whole(checkpoint / DIGEST, _digest(table))


def check_digest(folder: Path) -> None:
    """Compare the table of contents with its digest; earlier versions have written none.

    Raises:
        ValueError: If a bit has changed.
    """
    digest = folder / DIGEST
    if digest.exists() and digest.read_text() != _digest(folder / TABLE):
        raise ValueError(f"it is damaged: its content differs from {DIGEST}")


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
