"""Entry point of ``lit-entrodrop``: find the command, run it, and report errors on one line."""

import io
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from lit_entrodrop import __version__
from lit_entrodrop.cli.commands import check_command, overview
from lit_entrodrop.cli.messages import missing_package, moved_path, usage_error
from lit_entrodrop.cli.noise import silence_libraries
from lit_entrodrop.cli.plain_errors import plain_error
from lit_entrodrop.runtime.shown_text import one_line

INTERRUPTED = 130  # as a shell reports SIGINT


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with a one-line error and exit status 1 or 2.

    Set ``LIT_ENTRODROP_TRACEBACK=1`` to see where an error was raised.

    Args:
        args: Command line; by default that of the process.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    # An installed script does not search the working folder, where a class_path may lead.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    _print_on_any_terminal()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
    elif arguments[0] == "--version":
        print(f"lit-entrodrop {__version__}")
    else:
        silence_libraries()
        _run(arguments)


def _run(arguments: list[str]) -> None:
    try:
        _run_command(arguments)
    except KeyboardInterrupt:
        print(f"lit-entrodrop {arguments[0]}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("LIT_ENTRODROP_TRACEBACK") or not _is_expected(error):
            raise
        if isinstance(error, ArgumentError):
            # Of `fit`, whose arguments other commands take too.
            print(usage_error("lit-entrodrop fit", error), file=sys.stderr)
            sys.exit(2)
        # A class that a setting names may have raised it, within the parser.
        message = missing_package(error) or one_line(plain_error(str(error)))
        sys.exit(f"lit-entrodrop: error: {message}{moved_path(message)}")


def _run_command(arguments: list[str]) -> None:
    name = arguments[0]
    # Options before `fit`, `validate` and so on, such as --config, are Lightning's.
    if not name.startswith("-"):
        check_command(name)
        package = f"lit_entrodrop.commands.{name.replace('-', '_')}"
        if find_spec(package):
            import_module(f"{package}.command").main(arguments[1:])
            return
    from lit_entrodrop.cli.lit_cli import run_lightning

    run_lightning(arguments)


def _is_expected(error: Exception) -> bool:
    if isinstance(error, ValueError | OSError | FloatingPointError | ArgumentError):
        return True
    if missing_package(error):
        return True
    # Importing Lightning to learn that it raised nothing would take seconds.
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return lightning is not None and isinstance(error, lightning.MisconfigurationException)


def _print_on_any_terminal() -> None:
    # A question mark in place of a symbol is better than an encoding error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
