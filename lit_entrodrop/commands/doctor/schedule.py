"""Checks of how long, how fast and how reproducibly a config trains."""

from lit_entrodrop.commands.doctor.check import Check, Theme, passed, warned
from lit_entrodrop.commands.doctor.subject import Subject
from lit_entrodrop.training.optim import LRSchedule

# Repeated text is nearly as good as new up to about so many epochs (Muennighoff et al. 2023,
# arXiv 2305.16264), which pre-trained from scratch; plain fine-tuning overfits after a handful.
HARMLESS_EPOCHS = 4.0
FEW_STEPS = 5  # of an epoch
LONG_WARMUP = 0.3  # share of all steps
# Usual peaks of AdamW, beyond which a run more often diverges or learns nothing.
RATES = {"all weights": (1e-6, 2e-4), "adapters": (1e-5, 2e-3)}
LARGE = 50_000_000  # parameters; smaller models bear higher rates
WATCHED = "val/loss, also by entropy, shows when it overfits; checkpoints/best.ckpt keeps the best"

UNWATCHED = "without a validation split nothing will show when it overfits"


def epochs(subject: Subject) -> Check:
    """Compare the passes over the text with those after which models are known to overfit."""
    blocks, per_epoch = subject.blocks("train"), subject.steps_per_epoch
    assert blocks is not None, "there is always something to train on"
    passes = subject.steps / per_epoch
    tokens = len(blocks.tokens)
    each = passes * tokens / subject.sizes.trainable
    names = [type(regularizer).__name__ for regularizer in subject.module.regularizers.ordered]
    found = (
        f"{passes:.3g} epochs of {tokens:,} tokens, {each:.2g} tokens for each trainable "
        f"parameter, under {', '.join(names) or 'no regularizer'}; "
        f"{UNWATCHED if subject.blocks('validation') is None else WATCHED}"
    )
    if subject.module.regularizers.requirements.entropy == "last_epoch" and passes <= 1:
        return warned(
            f"{found}; entropies of the last epoch are unknown in the first, so nothing is dropped",
            "set entropy_source to reference or online, or train for more epochs",
        )
    if passes > HARMLESS_EPOCHS and not names:
        return warned(
            found,
            f"repeated text is nearly as good as new up to about {HARMLESS_EPOCHS:.0f} epochs "
            "(arXiv 2305.16264), and plain fine-tuning overfits after a handful: add one of "
            "configs/regularizers, or train for fewer epochs",
        )
    return passed(found)


def steps(subject: Subject) -> Check:
    """Tell the optimizer steps, and whether the warm-up leaves room for the rest."""
    total, per_epoch = subject.steps, subject.steps_per_epoch
    schedule = LRSchedule(**subject.config["model"]["lr_schedule"])
    warmup = schedule.warmup if schedule.warmup >= 1 else schedule.warmup * total
    found = f"{total:,} steps, {per_epoch:,} an epoch, {warmup:,.0f} of them warm up"
    if warmup >= total:
        return warned(
            f"{found}: the learning rate never reaches its peak",
            "set model.lr_schedule.warmup to a share such as 0.03",
        )
    if warmup > LONG_WARMUP * total:
        return warned(found, "shorten model.lr_schedule.warmup: 0.03 of all steps is usual")
    if per_epoch < FEW_STEPS:
        return warned(
            f"{found}: the model is compared with validation after every few steps only",
            "lower data.batch_size or trainer.accumulate_grad_batches for more steps of an epoch",
        )
    return passed(found)


def learning_rate(subject: Subject) -> Check:
    """Compare the peak learning rate with what is usual."""
    rate = (subject.config["model"]["optimizer"].get("init_args") or {}).get("lr")
    if rate is None:
        return passed("the optimizer's own default")
    trained = "all weights" if subject.job.lm.lora is None else "adapters"
    low, high = RATES[trained]
    random = subject.job.lm.pretrained is None
    name = subject.config["model"]["optimizer"]["class_path"].rpartition(".")[2]
    found = f"{rate:g} for {trained} of {subject.sizes.parameters:,} parameters, by {name}"
    if random or subject.sizes.parameters < LARGE:
        high *= 100
    if "Adam" not in name:
        return passed(f"{found}, for which no usual range is known here")
    if low <= rate <= high:
        return passed(found)
    return warned(
        f"{found}; usual are {low:g} to {high:g}", "set model.optimizer.init_args.lr within that"
    )


def seeds(subject: Subject) -> Check:
    """Tell the seeds, and whether they are chosen by chance."""
    seed, split = subject.config["seed_everything"], subject.config["data"]["split_seed"]
    found = f"seed_everything {seed}, data.split_seed {split}"
    if isinstance(seed, bool):
        return warned(
            f"{found}: initial adapters or weights are not those of the next run",
            "set seed_everything to a number",
        )
    return passed(f"{found}; compare methods under the same split_seed and several seed_everything")


SCHEDULE = Theme("schedule", (epochs, steps, learning_rate, seeds))
