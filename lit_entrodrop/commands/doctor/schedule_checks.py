"""Checks of the length, learning rate and reproducibility of a run."""

from lit_entrodrop.commands.doctor.check import CheckResult, Theme, passed, warned
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.training.optim import LRSchedule

# Repeated text is nearly as good as new up to about this many epochs (Muennighoff et al. 2023,
# arXiv 2305.16264) when pre-training from scratch; plain fine-tuning overfits after a handful.
HARMLESS_EPOCHS = 4.0
FEW_STEPS = 5  # per epoch
LONG_WARMUP = 0.3  # share of all steps
# Usual peaks of AdamW, beyond which a run more often diverges or learns nothing.
RATES = {"all weights": (1e-6, 2e-4), "adapters": (1e-5, 2e-3)}
LARGE = 50_000_000  # parameters; smaller models train at higher rates
MONITORED = (
    "val/loss, overall and by entropy, shows when it overfits; checkpoints/best.ckpt keeps the best"
)
UNMONITORED = "without a validation split, overfitting cannot be detected"


def epochs(run: ConfiguredRun) -> CheckResult:
    """Compare the number of epochs with the number after which models usually overfit."""
    passes = run.steps / run.steps_per_epoch
    tokens = run.train_blocks.num_tokens
    per_parameter = passes * tokens / run.sizes.trainable
    names = [type(regularizer).__name__ for regularizer in run.module.regularizers.ordered]
    found = (
        f"{passes:.3g} epochs of {tokens:,} tokens, {per_parameter:.2g} tokens per trainable "
        f"parameter, under {', '.join(names) or 'no regularizer'}; "
        f"{UNMONITORED if run.blocks('validation') is None else MONITORED}"
    )
    if run.module.regularizers.requirements.entropy == "last_epoch" and passes <= 1:
        return warned(
            f"{found}; entropies of the last epoch are unknown in the first epoch, so nothing is "
            "dropped",
            "set entropy_source to reference or online, or train for more epochs",
        )
    if passes > HARMLESS_EPOCHS and not names:
        return warned(
            found,
            f"repeated text is nearly as good as new up to about {HARMLESS_EPOCHS:.0f} epochs "
            "(arXiv 2305.16264), and plain fine-tuning overfits after a handful: add a config of "
            "configs/regularizers, or train for fewer epochs",
        )
    return passed(found)


def steps(run: ConfiguredRun) -> CheckResult:
    """Count the optimizer steps, and check that the warm-up leaves most of them."""
    total, per_epoch = run.steps, run.steps_per_epoch
    schedule = LRSchedule(**run.config["model"]["lr_schedule"])
    warmup = schedule.warmup if schedule.warmup >= 1 else schedule.warmup * total
    found = f"{total:,} steps, {per_epoch:,} per epoch, {warmup:,.0f} of them warm-up"
    if warmup >= total:
        return warned(
            f"{found}: the learning rate never reaches its peak",
            "set model.lr_schedule.warmup to a share such as 0.03",
        )
    if warmup > LONG_WARMUP * total:
        return warned(found, "shorten model.lr_schedule.warmup: 0.03 of all steps is usual")
    if per_epoch < FEW_STEPS:
        return warned(
            f"{found}: an epoch has few optimizer steps",
            "lower data.batch_size or trainer.accumulate_grad_batches for more steps per epoch",
        )
    return passed(found)


def learning_rate(run: ConfiguredRun) -> CheckResult:
    """Compare the peak learning rate with the usual range."""
    rate = (run.config["model"]["optimizer"].get("init_args") or {}).get("lr")
    if rate is None:
        return passed("the default of the optimizer")
    trained = "all weights" if run.workload.lm.lora is None else "adapters"
    low, high = RATES[trained]
    random = run.workload.lm.pretrained is None
    name = run.config["model"]["optimizer"]["class_path"].rpartition(".")[2]
    found = f"{rate:g} for {trained} of {run.sizes.parameters:,} parameters, with {name}"
    if random or run.sizes.parameters < LARGE:
        high *= 100
    if "Adam" not in name:
        return passed(f"{found}, for which no usual range is known here")
    if low <= rate <= high:
        return passed(found)
    return warned(
        f"{found}; {low:g} to {high:g} is usual",
        "set model.optimizer.init_args.lr within that range",
    )


def seeds(run: ConfiguredRun) -> CheckResult:
    """Report the seeds, and whether they are fixed."""
    seed, split = run.config["seed_everything"], run.config["data"]["split_seed"]
    found = f"seed_everything {seed}, data.split_seed {split}"
    if isinstance(seed, bool):
        return warned(
            f"{found}: initial adapters or weights differ from run to run",
            "set seed_everything to a number",
        )
    return passed(
        f"{found}; to compare methods, keep split_seed and repeat with several seed_everything"
    )


SCHEDULE = Theme("schedule", (epochs, steps, learning_rate, seeds))
