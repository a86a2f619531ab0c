"""Checks of the length, learning rate and reproducibility of a run."""

from math import inf

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
MATCHING = "match_rms_adamw"
FAR = 10  # times the usual range, beyond which the rate of a group is reported
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
    optimizer = run.config["model"]["optimizer"]
    rate = (optimizer.get("init_args") or {}).get("lr")
    if rate is None:
        return passed("the default of the optimizer")
    trained = "all weights" if run.workload.lm.lora is None else "adapters"
    low, high = usual_rates(run)
    name = optimizer["class_path"].rpartition(".")[2]
    found = f"{rate:g} for {trained} of {run.sizes.parameters:,} parameters, with {name}"
    if high == inf:
        return passed(f"{found}, for which no usual range is known here")
    if low <= rate <= high:
        return passed(found)
    return warned(
        f"{found}; {low:g} to {high:g} is usual",
        "set model.optimizer.init_args.lr within that range",
    )


def parameter_groups(run: ConfiguredRun) -> CheckResult:
    """Form the parameter groups, and compare their learning rates with the usual range."""
    module, adapters = run.workload.build_on_meta(), run.workload.lm.lora
    groups = run.module.optimization.planned_groups(module, adapters)
    counts = [sum(each.numel() for each in group["params"]) for group in groups]
    found = "; ".join(
        f"{group['name']}: {count:,} parameters, learning rate {float(group['lr']):.4g}"
        for group, count in zip(groups, counts, strict=True)
    )
    _, high = usual_rates(run)
    if any(float(group["lr"]) > FAR * high for group in groups):
        return warned(
            f"{found}; up to {high:g} is usual",
            "lower model.groups.lr or lora.loraplus_lr_ratio, factors of the optimizer's lr",
        )
    return passed(found)


def usual_rates(run: ConfiguredRun) -> tuple[float, float]:
    """Return the lowest and the highest usual learning rate; 0 and infinity if none is known."""
    optimizer = run.config["model"]["optimizer"]
    name, settings = optimizer["class_path"].rpartition(".")[2], optimizer.get("init_args") or {}
    # Its updates then have the size of those of AdamW.
    scaled = settings.get("adjust_lr_fn", MATCHING) == MATCHING
    if not ("Adam" in name or (name == "Muon" and scaled)):
        return 0.0, inf
    low, high = RATES["all weights" if run.workload.lm.lora is None else "adapters"]
    is_small = run.workload.lm.pretrained is None or run.sizes.parameters < LARGE
    return low, high * 100 if is_small else high


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


SCHEDULE = Theme("schedule", (epochs, steps, learning_rate, parameter_groups, seeds))
