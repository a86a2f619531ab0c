"""SIGTERM, resuming and export on the device, with the bundled tiny model."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.gpu_campaign.cases import Row, Skipped
from benchmarks.harness import ROOT
from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.verify_resume.differences import Comparison, without_root
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.runs.metrics_file import read_metrics

LAST = "checkpoints/last.ckpt"


class Terminate(L.Callback):
    """Send SIGTERM to this process after a step.

    Args:
        step: Number of the step, from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Send the signal."""
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def measure_resume(
    changes: Mapping[str, Any], device: str, steps: int = 12, stop: int = 8
) -> Iterator[Row]:
    """Train without interruption, and stopped and resumed; compare, export and load the model.

    Args:
        changes: Settings of the training beside those of the base config.
        device: Device, ``cuda`` or ``cpu``.
        steps: Number of steps in two epochs.
        stop: Step after which the run receives SIGTERM.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        short = {
            "trainer": {
                "max_epochs": 2,
                "limit_train_batches": steps // 2,
                "log_every_n_steps": 1,
                "deterministic": "warn",
            }
        }
        entrodrop = str(ROOT / "configs/regularizers/entrodrop.yaml")
        base = f"--config={ROOT / 'configs/base.yaml'}"
        config = resolved_config([base, f"--config={entrodrop}", changes, short])
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        whole, resumed = folder / "whole", folder / "resumed"
        statuses = [
            fit(folder, whole),
            fit(
                folder,
                resumed,
                f"--trainer.callbacks+={__name__}.Terminate",
                f"--trainer.callbacks.step={stop}",
            ),
        ]
        stopped = read_all(resumed / LAST)["global_step"]
        statuses.append(fit(folder, resumed, "--ckpt_path=last"))
        comparison = Comparison()
        comparison.compare_metrics(read_metrics(whole), read_metrics(resumed), "metrics")
        last, other = (without_root(read_all(run / LAST), str(run)) for run in (whole, resumed))
        comparison.compare(last, other)
        if statuses != [0, 128 + signal.SIGTERM, 0]:
            raise RuntimeError(
                f"expected runs that end, stop on SIGTERM and resume, got {statuses}"
            )
        yield {
            "statuses": statuses,
            "stopped_at": stopped,
            "steps": last["global_step"],
            "tensors": comparison.tensors,
            "differences": len(comparison.differences),
            "first_difference": str(next(iter(comparison.differences), "none")),
        }
        exported = folder / "model"
        status = call(["export", "--ckpt_path", str(resumed / LAST), "--output", str(exported)])
        yield {"export_status": status, **load(exported, device)}


def measure_qlora(changes: Mapping[str, Any], device: str) -> Iterator[Row]:
    """Do the same with adapters around 4 bits and paged 8-bit AdamW; the exported model is merged.

    Args:
        changes: Settings of the training beside those of the base config.
        device: Device, ``cuda`` or ``cpu``, where no optimizer can be paged.
    """
    if missing := [name for name in ("bitsandbytes", "peft") if find_spec(name) is None]:
        raise Skipped(f"{' and '.join(missing)} not installed")
    name = "AdamW8bit" if device == "cpu" else "PagedAdamW8bit"
    settings = yaml.safe_load((ROOT / "configs/model/qlora.yaml").read_text())["model"]
    model = changes["model"] | {
        "lm": changes["model"]["lm"] | settings["lm"],
        "optimizer": {"class_path": f"bitsandbytes.optim.{name}", "init_args": {"lr": 1e-3}},
    }
    yield from measure_resume({**changes, "model": model}, device)


def fit(folder: Path, run: Path, *arguments: str) -> int | None:
    """Train in a process of its own; return its exit status."""
    config = ["--config", str(folder / "config.yaml"), "--trainer.default_root_dir", str(run)]
    return call(["fit", *config, *arguments])


def call(arguments: Sequence[str]) -> int | None:
    """Run a command in a process of its own, forked before CUDA starts; return its exit status."""
    process = multiprocessing.get_context("fork").Process(target=main, args=[arguments])
    process.start()
    process.join()
    return process.exitcode


def load(folder: Path, device: str) -> Row:
    """Load an exported model with Transformers, and generate with it."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("The patient", return_tensors="pt").to(device)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        loss = model(input_ids=ids, labels=ids).loss.item()
    return {"loaded_on": str(model.device), "text": tokenizer.decode(ids[0]), "loss_of_text": loss}
