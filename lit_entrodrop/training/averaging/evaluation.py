"""Second pass over the evaluated splits, for the averaged weights."""

from itertools import islice
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.training.callbacks.evaluation_files import EvaluationFiles
from lit_entrodrop.training.evaluation_module import EvaluationModule


def evaluate(module: EvaluationModule, metrics: RunMetrics) -> dict[str, Tensor]:
    """Return the metrics of the current weights of a module on the splits of a validation.

    The batches are those that Lightning's loop has just read. The losses of documents are added to
    the evaluation files.

    Args:
        module: Module that is validated.
        metrics: Accumulators, which are reset.
    """
    trainer, data = module.trainer, module.data
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]
    loaders: Any = trainer.val_dataloaders
    files = [each for each in callbacks if isinstance(each, EvaluationFiles)]
    # A loader draws a seed from the generator of the run.
    with torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context():
        for index, split in enumerate(data.evaluated):
            limit = trainer.num_val_batches[index]
            batches = islice(loaders[index], int(limit) if isfinite(limit) else None)
            for batch in batches:
                moved = trainer.strategy.batch_to_device(batch, dataloader_idx=index)
                outputs = score_clean(module.causal_lm, moved)
                edges, sources = module.entropies.edges, list(data.weights)
                values = metrics.update(split, outputs, moved, edges, sources)
                for each in files:
                    each.count_averaged(split, module, values, moved)
    return metrics.pop(data.evaluated)
