"""Where the ready configs lie."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def config_path(name: str) -> Path:
    """Return a ready config: beside the package in a clone, inside it when installed.

    Raises:
        ValueError: if there is none of that name.

    >>> config_path("base.yaml").name
    'base.yaml'
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"config: found no ready config {name}")
