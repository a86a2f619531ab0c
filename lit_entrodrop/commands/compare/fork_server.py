"""Imports that the fork server makes once for all runs of a comparison."""

import signal
import sys

# Whoever else imports this module, such as documentation tools, keeps receiving signals.
if any("multiprocessing.forkserver" in each for each in sys.orig_argv):
    # The server must outlive its children, and ends with `compare`. A child receives a signal that
    # came while it was forked as soon as it unblocks it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

import lit_entrodrop.cli.lit_cli
import lit_entrodrop.commands.compare.child  # noqa: F401
