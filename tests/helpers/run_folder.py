"""The folder of a run with every optional part, written without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lit_entrodrop.runs.evaluations import Evaluation, evaluation_path, write_run_info
from lit_entrodrop.runs.task_scores import ItemScore, task_scores_path, write_task_scores

BUCKETS = ("low", "mid", "high")
EDGES = (1.5, 3.5)
BINS = np.linspace(0, 8, 41)
TEXT = "An abnormality of the renal tubule , characterized by <b>raised</b> & slow cough"
STEPS = 28


def write_run(folder: Path, epochs: int = 8, seed: int = 0, without: Sequence[str] = ()) -> Path:
    """Write a run that overfits, most of all on high-entropy tokens.

    Args:
        folder: to write to.
        epochs: evaluations after the one before training.
        seed: of the noise.
        without: optional parts to leave out: "clean_train", "forgetting", "memorized",
            "regularizer", "samples", "task", "evaluations", "run.json", "config", "throughput",
            "sets".
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    losses = {name: _losses(level, epochs) for level, name in enumerate(BUCKETS)}
    _write_metrics(folder, losses, random, set(without))
    writers = {
        "evaluations": lambda: _write_evaluations(folder, losses, random),
        "run.json": lambda: _write_info(folder, random),
        "samples": lambda: _write_samples(folder, epochs),
        "task": lambda: _write_task(folder, epochs),
        "config": lambda: (folder / "config.yaml").write_text("seed_everything: 0\n"),
        "throughput": lambda: (folder / "throughput.csv").write_text(
            "step,seconds_per_step,tokens_per_second,mfu,memory_gb\n10,0.5,2100,,1.2\n"
        ),
    }
    for part in writers.keys() - set(without):
        writers[part]()
    return folder


def _losses(level: int, epochs: int) -> np.ndarray[Any, Any]:
    epoch = np.arange(epochs + 1)
    return 1 + 1.5 * level + 2 * np.exp(-epoch) + 0.01 * (1 + level) * epoch


def _write_metrics(folder: Path, losses: dict[str, Any], random: Any, without: set[str]) -> None:
    all_losses = np.mean(list(losses.values()), axis=0)
    rows: list[dict[str, float]] = []
    for epoch, loss in enumerate(all_losses):
        row = {"step": STEPS * epoch, "val/loss": loss, "val/accuracy": 0.3}
        row |= {f"val/loss_{name}_entropy": values[epoch] for name, values in losses.items()}
        if epoch:
            row["epoch"] = epoch - 1
        if "clean_train" not in without:
            row |= {"clean_train/loss": loss - 0.1 * epoch, "gap/loss": 0.1 * epoch}
            for level, (name, values) in enumerate(losses.items()):
                gap = 0.05 * (1 + level) * epoch
                row[f"clean_train/loss_{name}_entropy"] = values[epoch] - gap
                row[f"gap/loss_{name}_entropy"] = gap
        if "forgetting" not in without:
            row["forgetting/loss"] = 3.5 + 0.05 * epoch
        if "sets" not in without:
            row["exam/loss"] = loss + 0.5
            row |= {f"exam/loss_{name}_entropy": of[epoch] + 0.5 for name, of in losses.items()}
        if "memorized" not in without:
            row |= {"val/memorized": 0.01, "clean_train/memorized": 0.02 * epoch}
        rows.append(row)
    for step in range(7, STEPS * (len(all_losses) - 1) + 1, 7):
        progress = step / (STEPS * (len(all_losses) - 1))
        row = {"step": step, "epoch": (step - 1) // STEPS, "learning_rate": 1e-3 * (1 - progress)}
        row["train/loss"] = 4.5 - 1.5 * progress + random.normal(0, 0.05)
        if "regularizer" not in without:
            strength = 0.9 / (1 + np.exp(-10 * (progress - 0.5)))
            row["entro_drop/strength"] = strength
            row["entro_drop/drop_rate"] = strength / 2 + random.normal(0, 0.005)
        rows.append(row)
    pd.DataFrame(rows).sort_values("step").to_csv(folder / "metrics.csv", index=False)


def _write_evaluations(folder: Path, losses: dict[str, Any], random: Any) -> None:
    documents = 40
    share = random.multinomial(60, [0.34, 0.33, 0.33], size=documents)
    centres = (BINS[1:] + BINS[:-1]) / 2
    first = random.gamma(2, 1.5, (2, 60))
    for epoch in range(len(losses["low"])):
        means = np.array([losses[name][epoch] for name in BUCKETS])
        nll = share * random.normal(means, 0.05, (documents, 3))
        evaluation = Evaluation(
            step=STEPS * epoch,
            epoch=float(epoch),
            nll=np.column_stack([nll.sum(1), nll]),
            tokens=np.column_stack([share.sum(1), share]),
            histogram=(4000 * np.exp(-centres / (3 - 0.15 * epoch))).astype(int),
            histogram_edges=BINS,
            passage_nll=_without_first(first * 0.9**epoch + random.normal(0, 0.3, first.shape)),
            passage_entropy=_without_first(first * 0.95**epoch),
        )
        for name in ("", "exam"):
            evaluation.save(evaluation_path(folder, evaluation.step, evaluation_set=name))


def _without_first(values: Any) -> Any:
    values = values.astype("float32")
    values[:, 0] = np.nan
    return values


def _write_info(folder: Path, random: Any) -> None:
    words = TEXT.split()
    tokens = [[" " * (i > 0) + words[(i + p) % len(words)] for i in range(60)] for p in range(2)]
    entropy = [[None, *map(float, row)] for row in random.gamma(2, 1.5, (2, 59))]
    info = {
        "schema": 1,
        "buckets": {"names": list(BUCKETS), "edges": list(EDGES)},
        "passages": {"tokens": tokens, "reference_entropy": entropy},
        "provenance": {
            "regularizers": [
                {"class_path": "regularizers.EntroDrop", "init_args": {"quantile": 0.5}}
            ],
            "optimizer": {
                "class_path": "lit_entrodrop.training.optim.AdamW",
                "init_args": {"lr": 0.001},
            },
            "trainer": {"max_epochs": 8, "precision": "32-true"},
            "seed": 0,
            "data": {"corpus": ["hpo"], "block_size": 256, "splits": "train: 100 documents"},
            "versions": {"lit-entrodrop": "0.1.0", "torch": "2.13.0"},
        },
        "fingerprints": {"train": "a" * 64, "validation": "b" * 64},
    }
    write_run_info(folder, info)


def _write_samples(folder: Path, epochs: int) -> None:
    lines = [
        {
            "step": STEPS * e,
            "epoch": e,
            "prompt": prompt,
            "text": f"text {e} <script>alert(1)</script>",
        }
        for e in range(epochs + 1)
        for prompt in ("The heart", "A mild")
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_task(folder: Path, epochs: int) -> None:
    for epoch in range(epochs + 1):
        scores = [
            ItemScore(f"exam line {n}", f"question {n}?", ["<i>a</i>"], f"output {n}", n < epoch)
            for n in range(20)
        ]
        write_task_scores(task_scores_path(folder, STEPS * epoch), scores)
