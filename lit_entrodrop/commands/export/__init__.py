"""Convert a checkpoint to a folder that plain Transformers loads."""

from lit_entrodrop.commands.export.command import export

__all__ = ["export"]
