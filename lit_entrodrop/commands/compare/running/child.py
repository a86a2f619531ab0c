"""Child process of a comparison: runs one command of the program."""

import atexit
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lit_entrodrop.cli.main import main
from lit_entrodrop.runs.locking import describe_owner, lock


def run_command(
    arguments: Sequence[str], log: Path, lock_file: Path, environment: Mapping[str, str]
) -> None:
    """Run a command of the program in this process, which was forked for it."""
    # Ctrl-C at the terminal reaches this process through `compare` alone.
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    # The fork server blocks them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    locked = lock(lock_file)
    if locked is None:
        sys.exit(f"{lock_file.parent.parent}: {describe_owner(lock_file)}")
    os.environ.update(environment)
    # Lightning starts further ranks of DDP by these.
    sys.argv[1:] = arguments
    sys.modules["__main__"].__spec__ = find_spec("lit_entrodrop.__main__")
    try:
        main(arguments)
    finally:
        # Loggers of other packages finish at exit, which multiprocessing skips.
        atexit._run_exitfuncs()
