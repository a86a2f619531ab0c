"""Configs of `fit`: resolved, and their parts built, without running anything."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from lit_entrodrop.cli.lit_cli import LitCLI
from lit_entrodrop.cli.parsing import Parser
from lit_entrodrop.training.preflight.ranges import check_ranges


def resolved_config(arguments: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Return the config that `fit` would use, without building or running anything.

    Args:
        arguments: Arguments of `fit`; required ones may be missing. A mapping stands for a config
            file with this content.

    Raises:
        ArgumentError: If `fit` rejects an argument.
        ValueError: If a setting is out of its range.
    """
    parser = _fit_cli().parser
    flags = [
        f"--config={yaml.safe_dump(dict(each))}" if isinstance(each, Mapping) else each
        for each in arguments
    ]
    config = parser.parse_args(["fit", *flags])
    check_ranges(config["fit"].get)
    # As in config files, no value has a type of Python, such as an enumeration or a path.
    dumped = parser.dump(config, format="json", skip_unset=False, skip_validation=True)
    return dict(json.loads(dumped)["fit"])


def build_parts(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Build the parts of a complete config of `fit`, such as "model" and "data".

    No weights are loaded and no text is read.
    """
    cli = _fit_cli()
    # Lightning records it as the hyperparameters of what is built.
    cli.config = cli.parser.parse_args(["fit", f"--config={yaml.safe_dump(dict(config))}"])
    parts: Mapping[str, Any] = cli.parser.instantiate_classes(cli.config)["fit"]
    return parts


class _LenientParser(Parser):
    """Parser that accepts missing arguments, and raises errors instead of exiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "exit_on_error": False})

    def validate(self, *args: Any, **kwargs: Any) -> None:
        super().validate(*args, **{**kwargs, "skip_required": True})


class _ParserOnly(LitCLI):
    """Build the parser of `fit`; parse, build and run nothing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = {"subcommand": None}

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...


@cache
def _fit_cli() -> LitCLI:
    return _ParserOnly(only="fit", parser_class=_LenientParser)
