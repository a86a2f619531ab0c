"""Loss after the same tokens, time per step and state per weight, by optimizer.

The quickstart's model is fine-tuned on its corpus. The learning rate of each optimizer is the best
of three, by the validation loss of the first seed; the test loss is the mean over seeds. Steps are
timed in alternating order (see :mod:`benchmarks.live_fit`), as ratios to AdamW in the same round.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch

from benchmarks import harness
from benchmarks.live_fit import SILENT, TINY_BASE, TOKENIZER, LiveFit, fit
from lit_entrodrop.commands.plan.estimates.model_memory import optimizer_bytes
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.sizes import sizes_of
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW, LRSchedule, Muon

BASELINE = "adamw"


@dataclass(frozen=True)
class Case:
    """Optimizer, and learning rates to try."""

    make: Callable[..., torch.optim.Optimizer]
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    decay: Any = "cosine"


def cases() -> dict[str, Case]:
    """Return all optimizers by name."""
    import schedulefree
    from bitsandbytes.optim.adamw import AdamW8bit

    return {
        BASELINE: Case(AdamW),
        "muon": Case(Muon),
        "schedule_free": Case(schedulefree.AdamWScheduleFree, decay="constant"),
        "adamw8bit": Case(AdamW8bit),
        "adafactor": Case(torch.optim.Adafactor, (3e-3, 1e-2, 3e-2)),
    }


def optimizers(
    epochs: int = 3,
    seeds: int = 3,
    rounds: int = 20,
    threads: int = 1,
    device: str = "cpu",
    out: str = harness.RESULTS,
    max_train_tokens: int = 30_000,
    heldout: float = 0.015,
    only: list[str] | None = None,
) -> Path:
    """Train with each optimizer, and time its steps.

    Args:
        epochs: Number of passes over the training text.
        seeds: Number of runs at the best learning rate.
        rounds: Number of timed rounds; every optimizer takes one step in each.
        threads: Number of CPU threads.
        device: Device, cpu or cuda.
        out: Folder for the results.
        max_train_tokens: Number of training tokens.
        heldout: Share of documents in the validation split, and in the test split.
        only: Names of the optimizers, which must include adamw; null for all.
    """
    settings = {**locals()}
    harness.prepare(threads, device)
    chosen = {name: case for name, case in cases().items() if only is None or name in only}
    # Compiling small steps of bitsandbytes on a CPU takes longer than the steps.
    with TemporaryDirectory() as cache, torch.compiler.set_stance("force_eager"):
        data = partial(quickstart_data, cache, max_train_tokens, heldout)
        rows = {
            name: {"optimizer": name, **losses(case, data, epochs, seeds, device)}
            for name, case in chosen.items()
        }
        seconds = step_times(chosen, data, rounds, device)
    for name, row in rows.items():
        row |= harness.milliseconds(seconds[name])
        row["time_ratio"] = harness.ratio(seconds[name], seconds[BASELINE])["median"]
        row["bytes_per_weight"] = optimizer_bytes(chosen[name].make, torch.float32, hidden_share())
    return harness.save("optimizers", settings, list(rows.values()), out)


def losses(
    case: Case, data: Callable[[int], TextDataModule], epochs: int, seeds: int, device: str
) -> dict[str, Any]:
    """Choose the learning rate by validation, and return the losses at it."""
    tried = {rate: trained(case, rate, 0, data, epochs, device) for rate in case.rates}
    best = min(tried, key=lambda rate: tried[rate]["val"])
    others = [trained(case, best, seed, data, epochs, device) for seed in range(1, seeds)]
    test = [each["test"] for each in (tried[best], *others)]
    return {
        "rate": best,
        "val_loss_by_rate": [tried[rate]["val"] for rate in case.rates],
        "test_loss": statistics.mean(test),
        "test_losses": test,
    }


def trained(
    case: Case,
    rate: float,
    seed: int,
    data: Callable[[int], TextDataModule],
    epochs: int,
    device: str,
) -> dict[str, float]:
    """Train once, and return the validation and test losses at the end, in nats per token."""
    trainer = L.Trainer(
        accelerator="gpu" if device.startswith("cuda") else "cpu",
        devices=1,
        max_epochs=epochs,
        check_val_every_n_epoch=epochs,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        **SILENT,
    )
    used = data(seed)
    model = module(case, rate, seed, used)
    trainer.fit(model, datamodule=used)
    validation = float(trainer.callback_metrics["val/loss"])
    [tested] = trainer.test(model, datamodule=used, verbose=False)
    return {"val": validation, "test": tested["test/loss"]}


def module(case: Case, rate: float, seed: int, data: TextDataModule) -> LitCausalLM:
    """Return a module of the bundled model."""
    L.seed_everything(seed, verbose=False)
    return LitCausalLM(
        TINY_BASE,
        optimizer=partial(case.make, lr=rate),
        lr_schedule=LRSchedule(warmup=0.05, decay=case.decay),
        memorization=None,
        cache_dir=data.hparams["cache_dir"],
        seed=seed,
    )


def quickstart_data(cache: str, max_train_tokens: int, heldout: float, seed: int) -> TextDataModule:
    """Return the corpus of the quickstart with a test split, its blocks in the order of a seed."""
    return TextDataModule(
        "registry:hpo",
        tokenizer=TOKENIZER,
        block_size=256,
        batch_size=4,
        max_train_tokens=max_train_tokens,
        validation=heldout,
        test=heldout,
        clean_train_blocks=0,
        cache_dir=cache,
        seed=seed,
    )


def step_times(
    chosen: dict[str, Case], data: Callable[[int], TextDataModule], rounds: int, device: str
) -> dict[str, list[float]]:
    """Return the seconds of each step, by optimizer."""
    with live_fits(chosen, data, rounds, device) as fits:
        return harness.interleaved(
            {name: each.advance for name, each in fits.items()}, rounds, warmup=3, device=device
        )


@contextmanager
def live_fits(
    chosen: dict[str, Case], data: Callable[[int], TextDataModule], rounds: int, device: str
) -> Iterator[dict[str, LiveFit]]:
    """Start a run with each optimizer, which ends with the context."""
    fits: dict[str, LiveFit] = {}
    options = {"steps": rounds + 10, "device": device, "limit_val_batches": 0, **SILENT}
    for name, case in chosen.items():
        used = data(0)
        model = module(case, case.rates[0], 0, used)
        fits[name] = LiveFit(partial(fit, module=model, data=used, **options))
    try:
        yield fits
    finally:
        for each in fits.values():
            each.close()


def hidden_share() -> float:
    """Return the share of the model's parameters in transformer blocks."""
    sizes = sizes_of(build_on_meta(TINY_BASE))
    return 1 - sizes.around_trainable / sizes.trainable


if __name__ == "__main__":
    harness.command_line(optimizers)
