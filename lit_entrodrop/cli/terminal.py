"""Parser and console of the commands that read their own arguments."""

import argparse
import os
from typing import NoReturn

from rich.console import Console

from lit_entrodrop.cli.messages import usage_error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{usage_error(self.prog, message)}\n")


def command_parser(
    name: str, description: str, epilog: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser that reports errors on one line and accepts no abbreviated options.

    Args:
        name: Name of the command.
        description: Text of the help, printed with its line breaks.
        epilog: Examples, printed with their line breaks.
        usage: Usage line, in which ``%(prog)s`` stands for the command; by default, argparse
            lists all options.

    >>> command_parser("plan", "Plan.", "example: none").prog
    'lit-entrodrop plan'
    """
    return _Parser(
        prog=f"lit-entrodrop {name}",
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def console_of(width: int) -> Console:
    """Return a console for standard output, ``width`` characters wide without a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def refuse_ranks(name: str, started: str) -> None:
    """Refuse to run the command ``name``, which starts all ``started`` itself, under torchrun.

    Raises:
        ValueError: If a launcher has started this process as a rank.
    """
    if "LOCAL_RANK" in os.environ:
        raise ValueError(
            f"{name}: expected to be started once, as it starts all {started} itself, got a rank "
            "of torchrun: start it without torchrun"
        )
