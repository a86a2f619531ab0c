"""Imports that the fork server makes once for all runs of a comparison."""

import signal

# The server must outlive its children, and ends with `compare`.
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, signal.SIG_IGN)

import lit_entrodrop.cli.lit_cli  # noqa: E402
import lit_entrodrop.commands.compare.child  # noqa: E402, F401
