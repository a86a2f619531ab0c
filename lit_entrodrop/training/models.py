"""The models of a run: the trained model, and the frozen reference that it is compared with."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.adapters.lora import without_adapters
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import NO_REQUIREMENTS, CausalLM
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.model.config import LMConfig, frozen_config, is_within
from lit_entrodrop.model.loading import load_tokenizer, locate
from lit_entrodrop.training.evaluation_module import EvaluationModule
from lit_entrodrop.training.preflight.model import check_model, check_reference, check_trainable
from lit_entrodrop.training.strategies import hooks_of
from regularizers import Outputs, Requirements


def build_model(
    module: EvaluationModule,
    lm: LMConfig,
    tokenizer: PreTrainedTokenizerBase,
    required: Requirements = NO_REQUIREMENTS,
) -> CausalLM:
    """Build a model that fits the run of a module; return it, or this rank's shard of it."""
    strategy = module.trainer.strategy
    hooks_of(strategy).check_lm(lm)
    if lm is module.lm and module.is_fitting:
        check_trainable(lm)

    def build_whole() -> CausalLM:
        causal_lm = build_causal_lm(lm)
        causal_lm.require_head(strategy.root_device)
        check_model(causal_lm, tokenizer, module.data, required)
        return causal_lm

    return hooks_of(strategy).build(lm, build_whole)


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
        self.score: Callable[..., Outputs] | None = None

    def load(self, module: EvaluationModule) -> CausalLM | EntropyStore | None:
        """Load the model or file that scores training tokens; None if the initial model does."""
        if self.source is not None and Path(self.source).suffix == ".safetensors":
            if self._required.reference:
                raise ValueError(
                    "model.reference: expected a model, because a regularizer runs it, got the "
                    f"entropies {self.source}: name a hub model or a model folder"
                )
            return EntropyStore.load(Path(self.source), module.data.fingerprint("train"))
        if self.source is None and not self._required.reference:
            return None
        return self.build(module)

    def provide_entropies(self, module: EvaluationModule) -> None:
        """Compute the entropies and holdout gains of a fit, unless that is done.

        Call it when the strategy has restored the checkpoint, and not earlier.
        """
        if not module.entropies.ready:
            scorer, initial = self.load(module), module.causal_lm
            within = without_adapters(initial) if is_within(module.lm, None) else nullcontext()
            # Lightning enters the precision context for steps only.
            with module.trainer.precision_plugin.forward_context(), within:
                module.entropies.prepare(module.data, initial, scorer)
                module.holdout_gains.prepare(module.data, initial)

    def build(self, module: EvaluationModule) -> CausalLM | None:
        """Build the frozen model, sharded like the model of a module, and set :attr:`score`.

        If it is the trained model without its adapters, nothing is built.
        """
        if self._required.other_reference and _is_same(self.source, module.lm.pretrained):
            rank_zero_warn(
                "model.reference: expected a model of its own, because a regularizer excludes the "
                "tokens that it predicts as well as the trained model, got the model before "
                "training: name a model trained on text of the desired kind"
            )
        model = None if is_within(module.lm, self.source) else self._build_frozen(module)
        if self._required.reference and model is None:
            self.score = partial(_score_initial, module.causal_lm, required=self._required)
        elif self._required.reference and model is not None:
            if self._required.divergence:
                check_reference(module.causal_lm, model)
            self.score = partial(score_clean, model, required=self._required)
        return model

    def _build_frozen(self, module: EvaluationModule) -> CausalLM:
        frozen_lm = frozen_config(module.lm, self.source)
        if frozen_lm.pretrained is None:
            raise ValueError(
                "model.reference: expected a pretrained model, because lm.pretrained is null and "
                "the initial random weights are not saved: name one"
            )
        tokenizer = module.tokenizer
        if self.source is not None:
            # A model without a tokenizer of its own uses that of the trained model.
            with suppress(ValueError):
                tokenizer = load_tokenizer(self.source, module.lm.add_tokens)
        if tokenizer.get_vocab() != module.tokenizer.get_vocab():
            raise ValueError(
                f"model.reference: expected the vocabulary of {module.lm.tokenizer_source}, got "
                f"{self.source} with another: name a model with the same tokens"
            )
        model = build_model(module, frozen_lm, tokenizer).requires_grad_(False).eval()
        strategy = module.trainer.strategy
        return hooks_of(strategy).prepare_frozen(model, strategy.root_device)


def _score_initial(
    causal_lm: CausalLM, batch: Batch, required: Requirements, **options: Any
) -> Outputs:
    with without_adapters(causal_lm):
        return score_clean(causal_lm, batch, required, **options)


def _is_same(reference: str | None, pretrained: str | None) -> bool:
    if reference is None or pretrained is None:
        return reference is None
    return locate(reference) == locate(pretrained)
