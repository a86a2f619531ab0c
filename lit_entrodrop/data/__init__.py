"""Domain text to packed, document-isolated batches."""

from lit_entrodrop.data.datamodule import TextDataModule

__all__ = ["TextDataModule"]
