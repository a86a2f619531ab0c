"""Parsers that build nothing but classes, and report errors on one line."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from inspect import isclass, signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NoReturn

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    Namespace,
    auto_cli,
    get_loader,
    set_loader,
    set_parsing_settings,
)
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.cli.commands import COMMANDS
from lit_entrodrop.cli.config_files import find_config
from lit_entrodrop.cli.messages import (
    moved_path,
    removed_setting,
    usage_error,
)
from lit_entrodrop.cli.plain_errors import plain_error
from lit_entrodrop.cli.yaml_text import refuse_repeated_keys
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.runtime.spelling import did_you_mean
from regularizers.discovery import installed_regularizers, own_regularizers

# A config is data. It may name classes, and jsonargparse checks that they are of the right type.
# Whatever runs programs or changes files is refused, and settings without a type build nothing.
set_parsing_settings(import_path_denylist=[], instantiate_subclass_spec_in_any=False)

_load_value = get_loader("yaml")


def _load_without_repeated_keys(text: str) -> Any:
    value = _load_value(text)
    if isinstance(value, dict | list):
        refuse_repeated_keys(text)
    return value


set_loader("yaml", _load_without_repeated_keys, (yaml.YAMLError,))


class OneLineErrors(ArgumentParser):
    """A parser that refuses to call functions, and reports an error on one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def validate(self, namespace: Namespace, skip_unset: bool = True, **kwargs: Any) -> None:
        """Check values before anything is built from them.

        Raises:
            TypeError: If a value is wrong, or a ``class_path`` names a function.
        """
        # jsonargparse would take null for any setting. It only stands for a default of null, or
        # for a required setting, which is looked for below.
        given, nulls = namespace.clone(), [name for name, each in namespace.items() if each is None]
        # It takes long to collect all defaults.
        defaults: Any = self.get_defaults(skip_validation=True) if nulls else {}
        for name in nulls:
            if defaults.get(name) is None and ".init_args." not in name:
                given.pop(name)
        super().validate(given, skip_unset=False, **kwargs)
        _refuse_functions(namespace)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Serialize a config, without checking again what has been parsed."""
        text: str = super().dump(*args, **{"skip_validation": True, **kwargs})
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line to stderr and exit with status 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        message = plain_error(message, parser.get_defaults(skip_validation=True).keys())
        if not self.exit_on_error:
            super().error(message, ex)
        program = parser.prog.replace(" [options]", "")
        missing = re.match(r"(the following arguments are required: )(\w+)\.", message)
        if missing and missing[2] in COMMANDS:
            # The parser of all subcommands checks the arguments of each.
            program, message = f"{program} {missing[2]}", message.replace(missing[0], missing[1])
        self.exit(2, f"{usage_error(program, message)}\n")


class ConfigFile(ActionConfigFile):
    """``--config``, which finds the bundled configs from any folder."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Apply a config file, a bundled config or YAML text."""
        with suppress(ValueError, OSError):
            values = str(find_config(values, Path()))
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
        # Configs printed by `fit` contain it unset. `score` has no such option.
        if cfg.get("ckpt_path", "") is None:
            try:
                parser.get_default("ckpt_path")
            except KeyError:
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
        super().error(message + "".join(each for each in hints if each not in message), ex)


def _refuse_functions(value: object) -> None:
    """Raise a TypeError if a ``class_path`` names a function, or has unused ``dict_kwargs``."""
    if isinstance(value, Namespace):
        value = vars(value)
        # The class is imported already, to check its settings.
        path = value.get("class_path")
        if isinstance(path, str):
            named = resolve_name(path)
            if not isclass(named):
                raise TypeError(f"class_path: expected a class, got {path}, which is a function")
            if (others := value.get("dict_kwargs")) and not _takes_keywords(named):
                raise TypeError(
                    f"dict_kwargs: expected none for {path}, got {', '.join(others)}: use init_args"
                )
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            _refuse_functions(each)


def _takes_keywords(named: type) -> bool:
    """Return whether a class accepts arguments that its signature does not name."""
    return any(each.kind == each.VAR_KEYWORD for each in signature(named).parameters.values())


def call_with(function: Callable[..., object], name: str, arguments: Sequence[str]) -> object:
    """Call a function as a command: its arguments are flags, and its docstring is the help."""
    return auto_cli(
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
