"""Imports that the fork server makes once for all runs of a comparison."""

import lit_entrodrop.cli.lit_cli
import lit_entrodrop.commands.compare.running.child  # noqa: F401
