"""Parsers that tell an error in one line, and what may have been meant."""

import re
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.cli.config_files import find_config
from regularizers.discovery import installed_regularizers, own_regularizers


class OneLineErrors(ArgumentParser):
    """A parser that tells an error in one line, not below a list of all options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with one line on stderr and exit status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "")
        self.exit(2, f"{program}: error: {one_line(message)} (see {program} --help)\n")


class ConfigFile(ActionConfigFile):
    """``--config``, which finds the ready configs from any folder."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Apply the config that a name means; YAML itself may stand in its place."""
        with suppress(ValueError, OSError):
            values = str(find_config(values, Path()))
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]


class Parser(OneLineErrors, LightningArgumentParser):
    """The parser of Lightning's commands, which knows the regularizers and the ready configs."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Likewise, with ours in place of jsonargparse's ``--config``."""
        if kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Likewise, and tell which regularizer an unknown one may have been."""
        super().error(message + _meant_regularizer(message), ex)


def one_line(message: object) -> str:
    r"""Return a message without line ends.

    >>> one_line("a\n  b")
    'a b'
    """
    return " ".join(str(message).split())


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return a question for the known word that is most like another, if one is.

    Args:
        word: what was given.
        known: what could have been.
        otherwise: what to return if none of them is alike.

    >>> did_you_mean("entro_drop", ["EntroDrop", "ZLoss"], "see --help")
    'did you mean EntroDrop?'
    """
    spelled = {_letters(each): each for each in known}
    alike = get_close_matches(_letters(word), spelled, n=1)
    return f"did you mean {spelled[alike[0]]}?" if alike else otherwise


@cache
def load_regularizers() -> None:
    """Import all regularizers, so that a config can name them by their class alone.

    Warns of those that other packages announce in vain.
    """
    own_regularizers()
    for problem in installed_regularizers().problems:
        rank_zero_warn(one_line(problem))


def _letters(word: str) -> str:
    return re.sub(r"[-_]", "", word).lower()


def _meant_regularizer(message: str) -> str:
    known = [*own_regularizers(), *installed_regularizers().regularizers]
    # As jsonargparse words it, where a name leads to no class.
    given = re.search(
        r'"model\.regularizers".*(?:import path string: |class_path \'regularizers\.)(\w+)\b',
        message,
        re.DOTALL,
    )
    if given is None or given[1] in known:
        return ""
    return f": {did_you_mean(given[1], known, 'see lit-entrodrop regularizers')}"
