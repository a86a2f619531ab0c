"""What regularizers do to the tokens of a micro-batch, recorded while a training step runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.doctor.regularizer_probe import RecordedHooks, recording_copy
from lit_entrodrop.commands.preview.batches import Place, SelectedBatch
from lit_entrodrop.entropy.score_cache import entropy_folder
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.token_store import TokenEntropyStore
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.training.passes import tokens_to_regularize
from regularizers import Regularizer, Regularizers, Requirements, TrainingStep
from regularizers.base import overrides


@dataclass(frozen=True)
class TokenEffects:
    """Effects of one regularizer on each token of a micro-batch, ``[B, T]`` each.

    Args:
        name: Name of the regularizer.
        summary: Its strength, the shares of tokens that it changes, and its metrics, in one line.
        new_ids: Token ids after it, int64; -1 where it changes none.
        dropped: Whether it zeroes the embedding, bool.
        change: Norm of the change of the embedding, as a share of its norm; 0 without a change,
            NaN for one of unknown size.
        weight: Weight in the loss after it; NaN where it changes none.
        loss: Loss after it as a share of the loss before; NaN where it changes none.
    """

    name: str
    summary: str
    new_ids: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    change: NDArray[np.float64]
    weight: NDArray[np.float64]
    loss: NDArray[np.float64]


@dataclass(frozen=True)
class SeenBatch:
    """A micro-batch, and what a training step does to it.

    Args:
        selected: The micro-batch.
        entropy: Entropies under the initial model, ``[B, T]`` nats; NaN where unknown.
        effects: Effects of the regularizers that could run, in order.
        mean_loss: Loss of the step in nats per token, with regularizers; None without a model.
    """

    selected: SelectedBatch
    entropy: NDArray[np.float64]
    effects: Sequence[TokenEffects] = ()
    mean_loss: float | None = None


def see_with_model(probe: ModelProbe, selected: SelectedBatch) -> SeenBatch:
    """Run a training step on a batch, without gradient, and record its effects.

    A batch without a place in training gets only entropies.
    """
    batch, place = probe.trainer.strategy.batch_to_device(selected.batch), selected.place
    entropy = probe.score(batch).entropy
    if place is None:
        return SeenBatch(selected, _array(entropy))
    batch = {**batch, "entropy": _known_entropy(probe, batch, entropy, place)}
    configured = probe.module.regularizers
    copies, hooks = _recording(configured, runs_with_model)
    with torch.no_grad():
        _, loss, weight = probe.run_step(batch, copies, place.step, place.micro_batch)
    effects = _effects_of(hooks, configured.strengths(place.progress), entropy.shape)
    return SeenBatch(selected, _array(entropy), effects, loss.item() / max(weight.item(), 1e-8))


def see_without_model(run: ConfiguredRun, selected: SelectedBatch) -> SeenBatch:
    """Run the hooks of a training step that need no model, and record their effects."""
    batch, place, module = selected.batch, selected.place, run.module
    unknown = np.full(batch["input_ids"].shape, np.nan)
    if place is None:
        return SeenBatch(selected, unknown)
    step = TrainingStep(
        *tokens_to_regularize(batch),
        module.vocabulary,
        token_counts=_token_counts(run),
        progress=place.progress,
        global_step=place.step,
        epoch=place.epoch,
        micro_batch=place.micro_batch,
        seed=module.seed,
    )
    copies, hooks = _recording(module.regularizers, runs_without_model)
    regularizers = Regularizers(copies)
    regularizers.on_input_ids(step)
    if any(overrides(type(each), "on_embeddings") for each in copies):
        # Without weights, only the tokens that change are known, not by how much.
        table = next(build_on_meta(run.workload.lm).hf_model.get_input_embeddings().parameters())
        regularizers.on_embeddings(torch.ones(*unknown.shape, table.shape[-1]), step)
    regularizers.on_token_weight(step)
    strengths = module.regularizers.strengths(place.progress)
    effects = _effects_of(hooks, strengths, unknown.shape)
    without_size = [replace(each, change=np.where(each.change > 0, np.nan, 0)) for each in effects]
    return SeenBatch(selected, unknown, without_size)


def runs_with_model(regularizer: Regularizer) -> bool:
    """Return whether a regularizer needs nothing that takes passes over the whole corpus."""
    return regularizer.requirements.holdout_neighbors is None


def runs_without_model(regularizer: Regularizer) -> bool:
    """Return whether a regularizer needs nothing that a model computes.

    >>> from regularizers import EntroDrop, TokenReplacement
    >>> runs_without_model(TokenReplacement()), runs_without_model(EntroDrop())
    (True, False)
    """
    required = regularizer.requirements
    reads_outputs = Regularizers([regularizer]).reads_outputs
    without_model = Requirements(
        token_counts=required.token_counts, evaluations=required.evaluations
    )
    return not reads_outputs and required == without_model


def _token_counts(run: ConfiguredRun) -> Tensor | None:
    module = run.module
    if not module.regularizers.requirements.token_counts:
        return None
    return run.train_blocks.token_counts(module.vocabulary.size)


class _Placeholder(Regularizer):
    """Stand in for a regularizer that cannot run: draws depend on the places in the list."""


def _recording(
    configured: Regularizers, runs: Callable[[Regularizer], bool]
) -> tuple[list[Regularizer], list[RecordedHooks]]:
    copies, hooks = [], []
    for name, regularizer in zip(configured.names, configured.ordered, strict=True):
        if runs(regularizer):
            copied, calls = recording_copy(regularizer)
            hooks.append(RecordedHooks(name, calls))
        else:
            copied = _Placeholder()
        copies.append(copied)
    return copies, hooks


def _known_entropy(probe: ModelProbe, batch: Batch, entropy: Tensor, place: Place) -> Tensor:
    module = probe.module
    source = module.regularizers.requirements.entropy
    if source == "last_epoch" and place.epoch == 0:
        return torch.full_like(entropy, torch.nan)
    scorer = module.reference.load(module) if source == "reference" else None
    if not isinstance(scorer, EntropyStore):
        return entropy if scorer is None else score_clean(scorer, batch).entropy
    if "token_index" not in batch:
        return scorer.lookup(batch["block_id"].cpu()).to(entropy.device)
    settings = module.data.blocks("train"), entropy_folder(module.entropies.cache_dir)
    by_token = TokenEntropyStore.of_blocks(scorer, *settings)
    return by_token.lookup(batch["token_index"].cpu()).to(entropy.device)


def _effects_of(
    recorded: Sequence[RecordedHooks], strengths: Mapping[str, float], shape: tuple[int, ...]
) -> list[TokenEffects]:
    return [_effects(each, strengths.get(f"{each.name}/strength"), shape) for each in recorded]


def _effects(hooks: RecordedHooks, strength: float | None, shape: tuple[int, ...]) -> TokenEffects:
    unchanged = np.full(shape, np.nan)
    effects = TokenEffects(
        hooks.name,
        _summary(hooks, strength),
        new_ids=np.full(shape, -1),
        dropped=np.zeros(shape, bool),
        change=np.zeros(shape),
        weight=unchanged,
        loss=unchanged,
    )
    for hook, (before, after, _) in hooks.calls.items():
        if hook == "on_input_ids":
            new_ids = after.masked_fill(before == after, -1)
            effects = replace(effects, new_ids=new_ids.cpu().numpy())
        elif hook == "on_embeddings":
            dropped = (after == 0).all(-1) & (before != 0).any(-1)
            size = (after - before).float().norm(dim=-1) / before.float().norm(dim=-1)
            change = _array(size.nan_to_num(0.0))
            effects = replace(effects, dropped=dropped.cpu().numpy(), change=change)
        elif hook == "on_token_weight":
            effects = replace(effects, weight=_changed(before, after))
        elif hook == "on_token_loss":
            weight, loss = (
                _changed(getattr(before, name), getattr(after, name)) for name in ("weight", "loss")
            )
            weight = np.where(np.isnan(weight), effects.weight, weight)
            effects = replace(effects, weight=weight, loss=loss / _array(before.loss))
    return effects


def _summary(hooks: RecordedHooks, strength: float | None) -> str:
    parts = [] if strength is None else [f"strength {strength:.3g}"]
    parts.append(f"changes {', '.join(hooks.changes) or 'no token'}")
    measured = {name: value for name, value in hooks.metrics.items() if name != "strength"}
    return ", ".join([*parts, *(f"{name} {value:.3g}" for name, value in measured.items())])


def _changed(before: Tensor, after: Tensor) -> NDArray[np.float64]:
    return _array(after.double().masked_fill(before == after, torch.nan))


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array
