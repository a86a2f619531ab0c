"""Writer of predictions: loss and entropy of every token, in Parquet."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_entrodrop.runs.writing import draft
from lit_entrodrop.runtime.ranks import data_rank

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter


class PredictionWriter(BasePredictionWriter):
    """Write ``predictions-RANK.parquet``: one row for each token that is not padding.

    Columns: ``block_id``, ``document`` (within its block), ``position`` (within its block),
    ``token_id``, ``token``, ``nll`` and ``entropy`` (nats; NaN for the first token of a document,
    which nothing predicts), ``counted`` (whether its loss counts in training). Ranks that share
    batches write one file.

    Args:
        folder: Path to the folder of the file.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)
        self._writer: ParquetWriter | None = None
        self._unfinished = ExitStack()

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: Any, prediction: Any, *_: Any
    ) -> None:
        """Append the tokens of a batch."""
        from pyarrow.parquet import ParquetWriter

        if not data_rank(trainer).first:
            return
        table = token_table(prediction, pl_module.tokenizer)
        if self._writer is None:
            unfinished = self._unfinished.enter_context(draft(self._path(trainer)))
            self._writer = ParquetWriter(unfinished, table.schema)
        self._writer.write_table(table)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the file and log its path."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._unfinished.close()
            rank_zero_info(f"predictions: {self._path(trainer)}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Remove the incomplete file."""
        self._unfinished.__exit__(type(exception), exception, exception.__traceback__)

    def _path(self, trainer: L.Trainer) -> Path:
        return self.folder / f"predictions-{data_rank(trainer).rank}.parquet"


def token_table(prediction: dict[str, Tensor], tokenizer: Any) -> "pa.Table":
    """Return the tokens that ``predict_step`` scored as rows, without padding and dummy blocks."""
    import pyarrow as pa

    shape = prediction["input_ids"].shape
    block = prediction["block_id"][:, None].expand(shape)
    real = (prediction["document_ids"] >= 0) & (block >= 0)
    token_ids = prediction["input_ids"][real].cpu()
    columns = {
        "block_id": block[real],
        "document": prediction["document_ids"][real],
        "position": (real.cumsum(1) - 1)[real],
        "nll": prediction["nll"][real],
        "entropy": prediction["entropy"][real],
        "counted": (prediction["labels"] >= 0)[real],
    }
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    tokens = tokenizer.convert_ids_to_tokens(token_ids.tolist())
    return pa.table({**arrays, "token_id": token_ids.numpy(), "token": tokens})
