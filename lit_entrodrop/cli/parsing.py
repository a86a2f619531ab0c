"""Parsers that report errors on one line and suggest names for misspelled ones."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, auto_cli  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.cli.config_files import find_config
from lit_entrodrop.cli.messages import (
    did_you_mean,
    moved_path,
    one_line,
    removed_setting,
    usage_error,
)
from regularizers.discovery import installed_regularizers, own_regularizers


class OneLineErrors(ArgumentParser):
    """A parser that reports an error on one line, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line to stderr and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "")
        self.exit(2, f"{usage_error(program, message)}\n")


class ConfigFile(ActionConfigFile):
    """``--config``, which finds the bundled configs from any folder."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Apply a config file, a bundled config or YAML text."""
        with suppress(ValueError, OSError):
            values = str(find_config(values, Path()))
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
        # Configs printed by `fit` contain it unset. `score` has no such option.
        if cfg.get("ckpt_path", "") is None and "ckpt_path" not in vars(parser.get_defaults()):
            cfg.pop("ckpt_path")


class Parser(OneLineErrors, LightningArgumentParser):
    """Parser of `fit`, `validate` and so on, with regularizers and bundled configs."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an argument; ``--config`` also finds the bundled configs."""
        if kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report an error, with a hint for an unknown name, a moved or a removed one."""
        hints = _meant_regularizer(message), moved_path(message), removed_setting(message)
        super().error(message + "".join(hints), ex)


def call_with(function: Callable[..., object], name: str, arguments: Sequence[str]) -> None:
    """Call a function as a command: its arguments are flags, and its docstring is the help."""
    auto_cli(
        function,
        args=list(arguments),
        as_positional=False,
        parser_class=OneLineErrors,
        prog=f"lit-entrodrop {name}",
    )


@cache
def load_regularizers() -> None:
    """Import all regularizers, so that configs can name them by class; warn of unusable ones."""
    own_regularizers()
    for problem in installed_regularizers().problems:
        rank_zero_warn(one_line(problem))


def _meant_regularizer(message: str) -> str:
    known = [*own_regularizers(), *installed_regularizers().regularizers]
    # The message of jsonargparse if a name leads to no class, unless it ends with a suggestion.
    given = re.search(
        r'"model\.regularizers".*(?:import path string: |class_path \'regularizers\.)(\w+)\b(?!: )',
        message,
        re.DOTALL,
    )
    if given is None or given[1] in known:
        return ""
    return f": {did_you_mean(given[1], known, 'see lit-entrodrop regularizers')}"
