"""Fine-tuning runs of a comparison's config, one arm and one seed each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu_campaign.cases import Row
from benchmarks.gpu_campaign.verdict import BASELINE
from benchmarks.harness import ROOT, prepare
from lit_entrodrop.cli.fit_config import build_parts
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.measuring.measures import RunResult, measure
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun, plan_runs
from lit_entrodrop.commands.compare.planning.settings import read_settings
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runs.metrics_file import read_metrics

CONFIG = ROOT / "configs/comparisons/smollm2.yaml"
# Documents that no run trains or selects on.
HELDOUT = "heldout"
# Metrics of a run that a row has.
METRICS = ("loss", f"{HELDOUT}/loss", "clean_train_loss", "gap")


def prepare_evidence(
    source: str, model: Path, changes: list[Mapping[str, Any]], folder: Path
) -> Iterator[Row]:
    """Write the model as a folder, which loads faster than a GGUF file, and tokenize the corpus.

    Args:
        source: Source of the model, as ``model.lm.pretrained``.
        model: Folder for the model and its tokenizer.
        changes: Settings that change what all arms share.
        folder: Folder of all runs.
    """
    prepare(torch.get_num_threads())
    causal_lm = build_causal_lm(LMConfig(source))
    causal_lm.hf_model.save_pretrained(model)
    load_tokenizer(source).save_pretrained(model)
    yield {"model": source, "parameters": sum(each.numel() for each in causal_lm.parameters())}
    data = build_parts(planned_run(BASELINE, 0, changes, folder).config)["data"]
    data.setup()
    yield {"data": data.describe_splits(), "train_tokens": data.splits["train"].blocks.num_tokens}


def changes_for(
    device: str, precision: str, model: str, corpus: Path, heldout: Path, cache: Path
) -> dict[str, Any]:
    """Return what a run on this device changes in the config of the comparison.

    Without checkpoints, which take longer than an epoch: the held-out documents are evaluated at
    every validation.
    """
    return {
        "trainer": {
            "accelerator": "cpu" if device == "cpu" else "gpu",
            "devices": 1,
            "precision": precision,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
        },
        "model": {"lm": {"pretrained": model}, "cache_dir": str(cache)},
        "data": {
            "corpus": str(corpus),
            "evaluate": {HELDOUT: str(heldout)},
            "test": 0,
            "cache_dir": str(cache),
        },
    }


def train_arm(arm: str, seed: int, changes: list[Mapping[str, Any]], folder: Path) -> Iterator[Row]:
    """Train an arm at one seed, and yield its losses.

    Args:
        arm: Name of the arm.
        seed: Seed of the run.
        changes: Settings that change what all arms share.
        folder: Folder of all runs.
    """
    run = planned_run(arm, seed, changes, folder)
    run.folder.mkdir(parents=True)
    config = run.folder / "fit.yaml"
    config.write_text(yaml.safe_dump(run.config))
    main(["fit", "--config", str(config)])
    yield {"arm": arm, "seed": seed, **losses_of(run.folder)}


def planned_run(arm: str, seed: int, changes: list[Mapping[str, Any]], folder: Path) -> PlannedRun:
    """Return the run of an arm, with its complete config."""
    settings = read_settings(CONFIG)
    arms = tuple(each for each in settings.arms if each.name == arm)
    base = (*settings.base, *changes)
    [run] = plan_runs(replace(settings, arms=arms, seeds=(seed,), base=base), folder)
    return run


def losses_of(folder: Path) -> Row:
    """Return the losses of a run: best, last and of each epoch, and those of held-out documents."""
    result = measure(folder)
    metrics = read_metrics(folder)
    series = {
        name: metrics[name].dropna().tolist()
        for name in ("val/loss", f"{HELDOUT}/loss", "val_average/loss")
        if name in metrics
    }
    best_and_last = {
        f"{moment}/{name}": result.values.get(f"{moment}/{name}")
        for moment in ("best", "last")
        for name in METRICS
    }
    others = {name: result.values.get(name) for name in ("best_epoch", "drop_rate")}
    return {
        "steps": result.total_steps,
        "averaged": result.averaged,
        **best_and_last,
        **others,
        "seconds_per_step": result.values.get("seconds_per_step"),
        "losses": series,
        "documents": _documents(result),
    }


def _documents(result: RunResult) -> dict[str, Any]:
    found = {
        moment: result.documents[f"{moment}/{HELDOUT}/loss"]
        for moment in ("best", "last")
        if f"{moment}/{HELDOUT}/loss" in result.documents
    }
    tokens = [counts.tolist() for _, counts in found.values()][:1]
    summed = {moment: [round(float(nll), 3) for nll in nlls] for moment, (nlls, _) in found.items()}
    return {**summed, "tokens": tokens[0]} if tokens else {}
