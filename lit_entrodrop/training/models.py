"""The models of a run: the trained model, and the frozen reference that it is compared with."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.model.config import LMConfig, frozen_config
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.training.preflight import check_model, check_reference
from lit_entrodrop.training.strategies import hooks_of
from regularizers import Outputs, Requirements


def build_model(
    trainer: L.Trainer,
    data: TextDataModule,
    lm: LMConfig,
    tokenizer: PreTrainedTokenizerBase,
    required: Requirements = NO_REQUIREMENTS,
) -> CausalLM:
    """Build a model, sharded as the strategy of the run shards it.

    Args:
        trainer: Trainer whose processes have been set up.
        data: Data that the model must accept.
        lm: Configuration of the model.
        tokenizer: Tokenizer of the model.
        required: Requirements of the regularizers.

    Returns:
        The model, or this rank's shard of it.

    Raises:
        ValueError: If the model cannot be loaded, does not fit data or device, or lacks what is
            required.
    """

    def build_whole() -> CausalLM:
        causal_lm = build_causal_lm(lm)
        causal_lm.require_head(trainer.strategy.root_device)
        check_model(causal_lm, tokenizer, data, required)
        return causal_lm

    return hooks_of(trainer.strategy).build(lm, build_whole)


class Reference:
    """Frozen model, or file of its entropies, that training is compared with.

    Args:
        source: ``model.reference``: a pretrained model, or a file of ``lit-entrodrop score``; None
            for the initial model.
        required: Requirements of the regularizers.
    """

    def __init__(self, source: str | None, required: Requirements) -> None:
        self.source = source
        self._required = required
        #: Runs the frozen model on a batch; None unless a regularizer needs its outputs. A function
        #: keeps the model out of the modules that are trained and saved.
        self.score: Callable[[Batch], Outputs] | None = None

    def load(
        self,
        trainer: L.Trainer,
        data: TextDataModule,
        lm: LMConfig,
        tokenizer: PreTrainedTokenizerBase,
        trained: CausalLM,
    ) -> CausalLM | EntropyStore | None:
        """Load the reference.

        Args:
            trainer: Trainer whose processes have been set up.
            data: Data module, set up.
            lm: Configuration of the trained model.
            tokenizer: Tokenizer of the trained model.
            trained: Trained model.

        Returns:
            The scorer of the training tokens; None if the initial model scores them.

        Raises:
            ValueError: If the reference cannot be loaded, or has another vocabulary.
        """
        if self.source is not None and Path(self.source).suffix == ".safetensors":
            if self._required.reference:
                raise ValueError(
                    "model.reference: expected a model, because a regularizer runs it, got the "
                    f"entropies {self.source}: name a hub model or a model folder"
                )
            return EntropyStore.load(Path(self.source), data.fingerprint("train"))
        if self.source is None and not self._required.reference:
            return None
        return self.build(trainer, data, lm, tokenizer, trained)

    def build(
        self,
        trainer: L.Trainer,
        data: TextDataModule,
        lm: LMConfig,
        tokenizer: PreTrainedTokenizerBase,
        trained: CausalLM,
    ) -> CausalLM:
        """Build the frozen model, sharded like the trained one, and set :attr:`score`.

        Args:
            trainer: Trainer whose processes have been set up.
            data: Data module, set up.
            lm: Configuration of the trained model.
            tokenizer: Tokenizer of the trained model.
            trained: Trained model.
        """
        frozen_lm = frozen_config(lm, self.source)
        if frozen_lm.pretrained is None:
            raise ValueError(
                "model.reference: expected a pretrained model, because lm.pretrained is null and "
                "the initial random weights are not saved: name one"
            )
        own_tokenizer = _own_tokenizer(self.source, tokenizer)
        if own_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"model.reference: expected the vocabulary of {lm.tokenizer_source}, got "
                f"{self.source} with another: name a model with the same tokens"
            )
        model = build_model(trainer, data, frozen_lm, own_tokenizer).requires_grad_(False).eval()
        model = hooks_of(trainer.strategy).prepare_frozen(model, trainer.strategy.root_device)
        if self._required.reference:
            if self._required.divergence:
                check_reference(trained, model)
            self.score = partial(score_clean, model, required=self._required)
        return model


def _own_tokenizer(
    reference: str | None, otherwise: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """Return the tokenizer saved with a model, or another one if there is none."""
    if reference is None:
        return otherwise
    try:
        return load_tokenizer(reference)
    except ValueError:
        return otherwise
