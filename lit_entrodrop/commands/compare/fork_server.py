"""Imports that the fork server makes once for all runs of a comparison."""

import signal

import lit_entrodrop.cli.lit_cli
import lit_entrodrop.commands.compare.child  # noqa: F401

# The server must outlive its children, and ends with `compare`.
for signum in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, signal.SIG_IGN)
