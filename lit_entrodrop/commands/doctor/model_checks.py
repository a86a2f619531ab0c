"""Checks of the model, in the state in which a training step uses it."""

from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor, nn

from lit_entrodrop.commands.doctor.check import CheckResult, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.model_probe import ModelProbe, split_rows
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Integers
from lit_entrodrop.evaluation.diagnosis.overfitting import Floats, paired_rise
from lit_entrodrop.evaluation.metrics.document_losses import DocumentLosses
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import Batch, forward_clean
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig
from lit_entrodrop.model.probing import eval_mode
from regularizers import Regularizer
from regularizers.functional import IGNORE_INDEX

DOCUMENTS = 16  # to run without packing
# By whether the model computes in half precision.
LOSS_TOLERANCE = {False: 1e-3, True: 0.25}  # nats of a token
GRADIENT_TOLERANCE = {False: 1e-4, True: 2e-2}  # relative norm
FEW = 4  # documents, too few to estimate a spread
MAX_ERROR = 0.05  # nats, of the validation loss


def packed_documents_stay_apart(probe: ModelProbe) -> CheckResult:
    """Compare the loss of each token in a packed block with its loss in its document alone."""
    if not probe.run.data.packing:
        return passed("data.packing is off: each block has one document")
    packed = probe.packed_rows()
    if packed is None:
        return passed("no block has two documents")
    with probe.trainer.precision_plugin.forward_context():
        difference, count = packing_difference(probe.causal_lm, packed)
    tolerance = LOSS_TOLERANCE[in_half(probe)]
    found = (
        f"{count} real documents alone and packed: losses of their tokens differ by at most "
        f"{difference:.1e} nats (tolerance {tolerance:g})"
    )
    if difference <= tolerance:
        return passed(found)
    return failed(found, "set data.packing to false, or set another model.lm.attention")


def train_mode(probe: ModelProbe) -> CheckResult:
    """Run steps without regularizers, and check that train mode and dropout are active."""
    modes: dict[str, bool] = {}
    model = probe.causal_lm.hf_model

    def note_mode(name: str, module: nn.Module, _: object) -> None:
        modes[name] = module.training

    hooks = [
        module.register_forward_pre_hook(partial(note_mode, name))
        for name, module in model.named_modules()
    ]
    try:
        # Not `probe.batch`: scoring its entropies would reset the modes.
        batch = probe.rows("train")
        losses = [probe.mean_loss(batch, micro_batch=draw) for draw in (0, 1)]
    finally:
        for hook in hooks:
            hook.remove()
    evaluated = [name or "the model" for name, training in modes.items() if not training]
    if evaluated:
        return failed(
            f"{len(evaluated):,} of {len(modes):,} modules are in eval mode in a training step, "
            f"e.g. {evaluated[0]}",
            "some code calls eval(), which turns dropout off: call train() after it",
        )
    dropouts = dropout_settings(probe.module.lm, model)
    found = f"all {len(modes):,} modules are in train mode"
    if not dropouts:
        return passed(f"{found}; the model has no dropout of its own")
    named = ", ".join(f"{name} {p:g}" for name, p in dropouts.items())
    if losses[0] == losses[1]:
        return failed(
            f"{found}, but {named} changes nothing: two steps have the same loss, {losses[0]:.6g}",
            "set another model.lm.attention, or set the dropout to 0",
        )
    return passed(f"{found}; {named} is active")


def accumulation(probe: ModelProbe) -> CheckResult:
    """Compare the gradient of a batch with the gradient that its two halves accumulate."""
    tolerance = GRADIENT_TOLERANCE[in_half(probe)]
    difference = gradient_difference(probe)
    found = f"gradients of a batch and of its halves differ by {difference:.1e} of their norm"
    if not difference <= tolerance:
        return failed(
            f"{found} (tolerance {tolerance:g})",
            "rows of a batch influence each other, so results depend on data.batch_size: use "
            "another model",
        )
    changes = {
        name: gradient_difference(probe, regularizer)
        for name, regularizer in probe.regularizers.items()
        if not is_random(probe, regularizer)
    }
    dependent = [f"{name} ({each:.1e})" for name, each in changes.items() if not each <= tolerance]
    if dependent:
        return warned(
            f"{found}, but under {', '.join(dependent)} they differ by more",
            "its loss is not a sum over tokens: keep data.batch_size fixed when comparing runs",
        )
    return passed(found)


def validation_error(probe: ModelProbe) -> CheckResult:
    """Estimate the standard error of the validation loss from the spread between documents."""
    blocks = probe.run.blocks("validation")
    if blocks is None:
        return passed("no validation split")
    batch = probe.rows("validation", passes=4, each_once=True)
    losses, tokens = per_document(probe.score(batch).nll, batch, blocks)
    if len(losses) < FEW:
        return CheckResult("skip", f"only {len(losses)} documents in the text that was evaluated")
    documents = len(probe.run.documents["validation"])
    mean, error = paired_rise(losses, tokens)
    error *= (len(losses) / documents) ** 0.5
    found = (
        f"about {error:.3f} nats around an initial loss of {mean:.3f}, from {len(losses)} of "
        f"{documents:,} documents"
    )
    if error > MAX_ERROR:
        return warned(
            found, f"raise data.validation: its loss is only known to ±{2 * error:.2f} nats"
        )
    return passed(found)


def packing_difference(causal_lm: CausalLM, batch: Batch) -> tuple[float, int]:
    """Compare the losses of packed documents with those of the same documents alone.

    Returns:
        Largest difference of a token, in nats, and the number of documents compared.
    """
    rows = enumerate(batch["document_ids"].tolist())
    documents = [(row, each) for row, ids in rows for each in sorted(set(ids)) if each >= 0]
    differences = [0.0]
    with eval_mode(causal_lm):
        packed = forward_clean(causal_lm, batch).nll
        for row, document in documents[:DOCUMENTS]:
            places = batch["document_ids"][row] == document
            alone = {
                name: batch[name][row][None, places]
                for name in ("input_ids", "labels", "position_ids", "document_ids")
            }
            lone = forward_clean(causal_lm, alone).nll[0]
            differences.append((packed[row, places] - lone).abs().max().item())
    return max(differences), len(differences) - 1


def gradient_difference(probe: ModelProbe, *regularizers: Regularizer) -> float:
    """Return the relative difference between the gradients of a batch and of its halves."""
    whole = probe.gradient([probe.batch], regularizers)
    halves = probe.gradient(split_rows(probe.batch), regularizers)
    return float((whole - halves).norm() / whole.norm().clamp(min=1e-30))


def is_random(probe: ModelProbe, regularizer: Regularizer) -> bool:
    """Return whether a regularizer draws random numbers that change the loss."""
    with probe.without_dropout():
        losses = [
            probe.mean_loss(probe.batch, [regularizer], progress=1.0, micro_batch=draw)
            for draw in (0, 1)
        ]
    return losses[0] != losses[1]


def dropout_settings(lm: LMConfig, model: nn.Module) -> dict[str, float]:
    """Return the dropout probabilities above 0: of ``lm.dropout``, else of the model's config."""
    parts = asdict(lm.dropout) if lm.dropout else {}
    if configured := {f"lm.dropout.{part}": value for part, value in parts.items() if value}:
        return configured
    config: Any = getattr(model, "config", None)
    found = {
        name: float(value)
        for name, value in (config.to_dict() if config else {}).items()
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float) and value > 0
    }
    adapters = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    if not found and max(adapters, default=0.0) > 0:
        found["dropout"] = max(adapters)
    return found


def per_document(nll: Tensor, batch: Batch, blocks: PackedBlocks) -> tuple[Floats, Integers]:
    """Return the summed loss and the number of labeled tokens of each document, from [B, T]."""
    document = blocks.document_numbers(batch["block_id"].cpu(), batch["document_ids"].cpu())
    losses = DocumentLosses(blocks.num_documents, ())
    losses.update(nll.cpu(), batch["labels"].cpu() != IGNORE_INDEX, document)
    sums, tokens = (each[:, 0].numpy() for each in losses.compute())
    return sums[tokens > 0], tokens[tokens > 0]


def in_half(probe: ModelProbe) -> bool:
    """Return whether the model computes in half precision."""
    return str(probe.trainer.precision) in AUTOCAST_DTYPES or probe.module.lm.dtype != "float32"


MODEL = Theme("model", (train_mode, packed_documents_stay_apart, accumulation, validation_error))
