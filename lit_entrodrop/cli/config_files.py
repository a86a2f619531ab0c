"""Where the ready configs lie."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


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


def find_config(name: str, folder: Path) -> Path:
    """Return the config file that a name means.

    It is looked for in the working folder, in a folder given, and among the ready configs, whose
    names may begin with ``configs/``.

    Args:
        name: of the file.
        folder: where else to look.

    Raises:
        ValueError: if there is none.

    >>> find_config("configs/base.yaml", Path("/no/such/folder")).name
    'base.yaml'
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    try:
        return config_path(name.removeprefix("configs/"))
    except ValueError:
        raise ValueError(
            f"config: expected a file, found no {name} in {Path.cwd()}, in {folder.resolve()} or "
            "among the ready configs: correct the path"
        ) from None
