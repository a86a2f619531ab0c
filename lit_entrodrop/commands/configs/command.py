"""`lit-entrodrop configs`: list the bundled configs, or print one."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.cli.terminal import command_parser
from lit_entrodrop.runtime.spelling import did_you_mean

DESCRIPTION = """List the bundled configs, or print one of them, to copy and edit.

--config takes each by this name, from any folder."""
EPILOG = """examples:
  lit-entrodrop configs
  lit-entrodrop configs comparisons
  lit-entrodrop configs comparisons/entrodrop.yaml > my_comparison.yaml"""


def main(args: Sequence[str]) -> None:
    """Run the command."""
    parser = command_parser("configs", DESCRIPTION, EPILOG)
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="Config to print, or folder to list."
    )
    name: str = parser.parse_args(args).name
    configs = bundled_configs()
    asked = PurePosixPath(name)
    if asked.parts[:1] != ("configs",):
        asked = "configs" / asked
    if asked in configs:
        print(configs[asked], end="")
        return
    listed = {path: text for path, text in configs.items() if path.is_relative_to(asked)}
    if not listed:
        known = {str(each) for path in configs for each in (path, path.parent)}
        remedy = did_you_mean(str(asked), known, "lit-entrodrop configs lists them")
        raise ValueError(f"configs: expected the name of a bundled config, got {name}: {remedy}")
    width = max(len(str(path)) for path in listed)
    for path, text in listed.items():
        # Each begins with a comment.
        print(f"{path!s:<{width}}  {text.splitlines()[0].removeprefix('# ')}")


def bundled_configs() -> dict[PurePosixPath, str]:
    """Return the text of each bundled config by its name, in alphabetical order.

    >>> PurePosixPath("configs/model/tiny_base.yaml") in bundled_configs()
    True
    """
    folder = config_path("base.yaml").parent
    return {
        PurePosixPath("configs", path.relative_to(folder).as_posix()): path.read_text("utf-8")
        for path in sorted(folder.rglob("*.yaml"))
    }
