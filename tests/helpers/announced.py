"""A distribution that announces a regularizer, as an installer would leave it in a folder."""

from pathlib import Path

from regularizers.sources import GROUP

SOUND = """
from regularizers import Regularizer

class {name}(Regularizer):
    '''Do nothing.'''
"""


def install(folder: Path, package: str, announced: str, module: str, source: str) -> None:
    """Write a module, and the metadata of a distribution that announces a regularizer."""
    metadata = folder / f"{package}-2.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{announced}\n")
    (folder / f"{module}.py").write_text(source)
