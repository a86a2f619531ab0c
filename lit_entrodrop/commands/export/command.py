"""`lit-entrodrop export`: convert a checkpoint to a Hugging Face model folder."""

from collections.abc import Sequence

from lit_entrodrop.cli.parsing import call_with
from lit_entrodrop.commands.export.folder import export


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    call_with(export, "export", arguments)
