"""What the commands that read their own arguments share."""

import argparse
import os

from rich.console import Console


def command_parser(
    name: str, description: str, epilog: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a command, which takes no abbreviated options.

    Args:
        name: of the command.
        description: what it does, its lines as they are.
        epilog: examples, likewise.
        usage: in place of the one that argparse makes; ``%(prog)s`` stands for the command.

    >>> command_parser("plan", "Plan.", "example: none").prog
    'lit-entrodrop plan'
    """
    return argparse.ArgumentParser(
        prog=f"lit-entrodrop {name}",
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def console_of(width: int) -> Console:
    """Return a console for standard output.

    Args:
        width: in characters, where no terminal says how wide it is.
    """
    console = Console()
    return console if console.is_terminal else Console(width=width)


def refuse_ranks(name: str, started: str) -> None:
    """Refuse to be one of several ranks, for a command that starts them.

    Args:
        name: of the command.
        started: what it starts itself.

    Raises:
        ValueError: if a launcher has started this process as a rank.
    """
    if "LOCAL_RANK" in os.environ:
        raise ValueError(
            f"{name}: expected to be started once, as it starts all {started} itself, got a rank "
            "of torchrun: start it without torchrun"
        )
