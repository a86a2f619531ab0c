"""The content of a preview: statistics, blocks, and what regularizers do to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.doctor.resource_checks import room_to_load
from lit_entrodrop.commands.plan.config_conversion import data_parallel_size
from lit_entrodrop.commands.preview.batches import (
    Place,
    SelectedBatch,
    evaluation_batch,
    training_batches,
)
from lit_entrodrop.commands.preview.effects import (
    SeenBatch,
    runs_with_model,
    runs_without_model,
    see_with_model,
    see_without_model,
)
from lit_entrodrop.commands.preview.statistics import SplitStatistics, statistics_of
from lit_entrodrop.commands.preview.tokens import ShownBlock, shown_blocks
from lit_entrodrop.data.mixing import sources_of
from lit_entrodrop.data.sources import describe_unread
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.provenance import public_name


@dataclass(frozen=True)
class Preview:
    """What a config trains on.

    Args:
        title: Names of the corpora.
        split: Name of the split of the blocks.
        statistics: Statistics of all splits.
        blocks: The blocks.
        effects: Name of each regularizer and its effect on the first micro-batch, in one line.
        mean_loss: Loss of the first micro-batch, in nats per token; None without a model.
        notes: What is not read, not shown, or not as in training.
    """

    title: str
    split: str
    statistics: Sequence[SplitStatistics]
    blocks: Sequence[ShownBlock]
    effects: Sequence[tuple[str, str]] = ()
    mean_loss: float | None = None
    notes: Sequence[str] = field(default_factory=list)


def preview_of(
    run: ConfiguredRun, split: str, progress: float, blocks: int, with_model: bool
) -> Preview:
    """Read the text, and return what is shown of it.

    Args:
        run: The run.
        split: Name of the split whose blocks are shown.
        progress: Share of the training that is done, in [0, 1].
        blocks: Number of blocks to show.
        with_model: Whether to load the model, if it can be loaded.

    Raises:
        ValueError: If the text cannot be used, or there is no such split.
    """
    run.data.check_requested(split)
    run.read_data()
    splits, tokenizer = run.data.splits, run.data.tokenizer
    batches = (
        list(training_batches(run, progress, blocks))
        if split == "train"
        else [evaluation_batch(run, split, blocks)]
    )
    seen, reason = _seen_with_model(run, batches) if with_model else (None, "--no_model")
    sources = sources_of(run.config["data"]["corpus"])
    unread = describe_unread(sources, public_name).splitlines()
    notes = [*unread, *_notes(run, batches[0].place, reason)]
    if seen is None:
        seen = [see_without_model(run, batch) for batch in batches]
    shown = (block for each in seen for block in shown_blocks(each, splits, tokenizer))
    return Preview(
        ", ".join(public_name(source) for source in sources),
        split,
        statistics_of(splits),
        list(islice(shown, blocks)),
        [(each.name, each.summary) for each in seen[0].effects],
        seen[0].mean_loss,
        notes,
    )


def _seen_with_model(
    run: ConfiguredRun, batches: Sequence[SelectedBatch]
) -> tuple[list[SeenBatch] | None, str]:
    """Return the batches, or None and why there is no model."""
    seen: list[SeenBatch] = []
    built = False

    def see() -> None:
        nonlocal built
        built, probe = True, ModelProbe(run)
        seen.extend(see_with_model(probe, batch) for batch in batches)

    try:
        room = room_to_load(run)
        if room.status != "pass":
            return None, room.found
        run.with_model(see)
    except (ValueError, OSError) as error:
        if built:
            raise
        return None, one_line(error)
    return seen, ""


def _notes(run: ConfiguredRun, place: Place | None, no_model: str) -> Iterator[str]:
    """Yield what is not shown, or not as in training."""
    if no_model:
        yield f"No model ({no_model}): entropies and what depends on them are not shown."
    elif run.config["ckpt_path"]:
        yield "ckpt_path is not read: entropies and regularizers are those of the initial model."
    if place is None:
        if len(run.module.regularizers):
            yield "Regularizers act on training text only."
        return
    runs = runs_without_model if no_model else runs_with_model
    configured = run.module.regularizers
    pairs = zip(configured.names, configured.ordered, strict=True)
    if missing := [name for name, each in pairs if not runs(each)]:
        why = "the model" if no_model else "passes over the whole corpus"
        yield f"Not shown: {', '.join(missing)}, which needs {why}."
    source = configured.requirements.entropy
    if source == "last_epoch" and place.epoch == 0 and not no_model:
        yield "In the first epoch no entropies are known yet, so none selects a token."
    elif source in ("last_epoch", "online") and place.step and not no_model:
        yield (
            "Entropies are those of the initial model; in training, those of the model by then "
            "select the tokens."
        )
    if place.epoch and run.data.order.reads_losses:
        yield "The order of the blocks depends on losses, which are not known before training."
    if data_parallel_size(run.config["trainer"]) > 1:
        yield "Blocks and draws are those of a run on one device."
