"""Lightning's Trainer, which can also score a corpus."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.scoring import score_split
from lit_entrodrop.entropy.store_file import open_rows
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runtime.lightning_compat import StageTrainer
from lit_entrodrop.runtime.ranks import is_first
from lit_entrodrop.training.module import LitCausalLM


class Trainer(StageTrainer):
    """Lightning's Trainer, which can also score a corpus, and evaluate averaged weights.

    Attributes:
        weights: Which weights of a checkpoint are evaluated.
    """

    weights: Weights = "best"

    def validate(self, *args: Any, weights: Weights = "best", **kwargs: Any) -> Any:
        """Evaluate a checkpoint on the validation split and the evaluation sets.

        Args:
            args: Arguments of Lightning's method.
            weights: Which weights of a checkpoint of a run with model.average: the averaged or the
                raw ones, or `best` for those with the better last evaluation.
            kwargs: Keyword arguments of Lightning's method.
        """
        self.weights = weights
        return super().validate(*args, **kwargs)

    def test(self, *args: Any, weights: Weights = "best", **kwargs: Any) -> Any:
        """Evaluate a checkpoint on the test split.

        Args:
            args: Arguments of Lightning's method.
            weights: Which weights of a checkpoint, as in `validate`.
            kwargs: Keyword arguments of Lightning's method.
        """
        self.weights = weights
        return super().test(*args, **kwargs)

    def predict(self, *args: Any, weights: Weights = "best", **kwargs: Any) -> Any:
        """Write the loss and the entropy of every token of a split.

        Args:
            args: Arguments of Lightning's method.
            weights: Which weights of a checkpoint, as in `validate`.
            kwargs: Keyword arguments of Lightning's method.
        """
        self.weights = weights
        return super().predict(*args, **kwargs)

    def score(
        self,
        model: LitCausalLM,
        datamodule: TextDataModule,
        split: str = "train",
        output: str | None = None,
    ) -> None:
        """Compute the entropy of every token under the initial model, and save the entropies.

        Every block is scored, whatever the limits of the trainer. An interrupted scoring resumes.

        Args:
            model: Frozen scorer.
            datamodule: Corpus.
            split: Split to score: train, validation, test or the name of an evaluation set.
            output: Path to a ``.safetensors`` file to write, for ``model.reference`` of a later
                fit. The entropies are also cached; a fit with ``entropy_source: reference`` and
                the same initial model finds them there.
        """
        _check_output(output)
        datamodule.check_requested(split)
        self.stage = partial(self._write_scores, model, datamodule, split, output)
        try:
            self.predict(model, datamodule=datamodule, return_predictions=False)
        finally:
            self.stage = None

    def _write_scores(
        self, model: LitCausalLM, data: TextDataModule, split: str, output: str | None
    ) -> None:
        with self.precision_plugin.forward_context():
            store, path = score_split(split, data, model.causal_lm, model.entropies.cache_dir)
        if output and is_first():
            store.save(Path(output))
        rank_zero_info(f"entropies: {output or path}")


def _check_output(output: str | None) -> None:
    if output is None:
        return
    path = Path(output)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ValueError(f"output: expected the name of a .safetensors file, got {output}")
    if path.exists():
        try:
            open_rows(path)
        except ValueError as error:
            raise ValueError(
                f"output: expected a new file or entropies of an earlier `score`, but {output} "
                "is another kind of file: name another"
            ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"output: expected a writable folder, got {path.parent}")
