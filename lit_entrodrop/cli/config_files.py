"""Paths of the bundled configs."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def config_path(name: str) -> Path:
    """Return the path of a bundled config: next to the package in a clone, inside it if installed.

    Raises:
        ValueError: If there is no bundled config of that name.

    >>> config_path("base.yaml").name
    'base.yaml'
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"config: found no bundled config {name}")


def find_config(name: str, folder: Path) -> Path:
    """Return the path of a config file.

    Searches the working folder, then ``folder``, then the bundled configs, whose names may start
    with ``configs/``.

    Raises:
        ValueError: If there is no such file.

    >>> find_config("configs/base.yaml", Path("/no/such/folder")).name
    'base.yaml'
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    try:
        return config_path(name.removeprefix("configs/"))
    except ValueError:
        searched = ", ".join(dict.fromkeys([str(Path.cwd()), str(folder.resolve())]))
        raise ValueError(
            f"config: expected a file, found no {name} in {searched} or among the bundled configs: "
            "correct the path"
        ) from None
