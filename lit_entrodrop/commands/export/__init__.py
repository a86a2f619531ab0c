"""Turn a checkpoint into a folder that plain Transformers opens."""

from lit_entrodrop.commands.export.folder import export

__all__ = ["export"]
