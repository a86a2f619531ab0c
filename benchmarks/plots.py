"""Draw the results: ``benchmarks/results/*.json`` to ``docs/images/bench_*.png``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from benchmarks import harness
from lit_entrodrop.commands.report.rendering.plotting import SERIES

Record = dict[str, Any]


def bars(
    record: Record,
    panel: Any,
    value: str,
    label: str,
    case: str = "case",
    group: str | None = None,
    error: str | None = None,
    target: float | None = None,
) -> None:
    """Draw one horizontal bar per case, with interquartile range and target.

    Args:
        record: Results of a benchmark.
        panel: Axes to draw on.
        value: Column with the lengths of the bars.
        label: Label of the horizontal axis.
        case: Column with the names of the bars.
        group: Column whose values are distinguished by color.
        error: Column with the interquartile range.
        target: Position of a dashed line.
    """
    rows = pd.DataFrame(record["rows"]).dropna(subset=[value])
    groups = [("", rows)] if group is None else list(rows.groupby(group, sort=False))
    cases = list(dict.fromkeys(rows[case]))
    height = 0.8 / len(groups)
    for index, (name, members) in enumerate(groups):
        places = [cases.index(each) + index * height for each in members[case]]
        spread = members[error] / 2 if error else None
        color = SERIES[(index + 2) % len(SERIES)]
        drawn = panel.barh(places, members[value], height, xerr=spread, label=name, color=color)
        panel.bar_label(drawn, fmt="{:,.3g}", padding=4, fontsize=8)
    middle = height * (len(groups) - 1) / 2
    panel.set_yticks([place + middle for place in range(len(cases))], cases)
    panel.invert_yaxis()
    panel.set_xlabel(label)
    panel.margins(x=0.15)
    if target is not None:
        panel.axvline(target, color="0.3", linestyle="--", linewidth=1)
    if group is not None:
        panel.legend(title=group, frameon=False, fontsize=8)


def step(record: Record, panel: Any) -> None:
    """Draw the cost of regularizers in a step."""
    label = "time of a step relative to plain (dashed: 1.02)"
    bars(record, panel, "ratio", label, group="model", error="ratio_iqr", target=1.02)


def regularizers(record: Record, panel: Any) -> None:
    """Draw the cost of each regularizer in a step, without the alternatives to it."""
    record = record | {"rows": [row for row in record["rows"] if ", " not in row["case"]]}
    label = "time of a step relative to plain"
    bars(record, panel, "ratio", label, group="model", error="ratio_iqr")


def overhead(record: Record, panel: Any) -> None:
    """Draw the overhead over a bare loop."""
    label = "ms per step above the bare loop (dashed: 0.5)"
    bars(record, panel, "over_bare_ms", label, error="over_bare_ms_iqr", target=0.5)


def data(record: Record, panel: Any) -> None:
    """Draw the time from text to batches."""
    bars(
        record,
        panel,
        "seconds",
        f"seconds ({record['rows'][0]['tokens']:,} tokens)",
        error="seconds_iqr",
    )


def head(record: Record, panel: Any) -> None:
    """Draw the time of each head."""
    label = "time relative to naive logits"
    bars(record, panel, "to_naive", label, case="head", group="vocab_size", error="to_naive_iqr")
    panel.axvline(1.0, color="0.3", linestyle="--", linewidth=1)


def peers(record: Record, panel: Any) -> None:
    """Draw the speed of trainers."""
    error = "tokens_per_s_iqr"
    bars(record, panel, "tokens_per_s", "tokens/s", case="arm", group="vocabulary", error=error)


def gpu(record: Record, panel: Any) -> None:
    """Draw the MFU of training."""
    for row in record["rows"]:
        row["case"] = f"{row['model']}, {row['length']:,}"
    bars(record, panel, "mfu", "MFU", group="compiled")


def gpu_step(record: Record, panel: Any) -> None:
    """Draw the cost of EntroDrop in a step on a GPU."""
    for row in record["rows"]:
        compiled = ", compiled" if row["compiled"] else ""
        row["model"] = f"{row['model']}, {row['length']:,}{compiled}"
    step(record, panel)


PLOTS: dict[str, tuple[str, Callable[[Record, Any], None]]] = {
    "head": ("Loss and entropy of the head, forward and backward", head),
    "step": ("Cost of a regularizer in a training step", step),
    "regularizers": ("Cost of each regularizer in a training step", regularizers),
    "overhead": ("Overhead of Lightning and of this project in a tiny step", overhead),
    "data": ("From text to batches", data),
    "peers": ("Full fine-tuning: this project and its peers", peers),
    "gpu": ("Training in bf16", gpu),
    "gpu_step": ("Cost of EntroDrop in a training step in bf16", gpu_step),
    "gpu_head": ("Loss and entropy of the head on a GPU", head),
}


def plots(results: str = harness.RESULTS, pictures: str = "docs/images") -> list[Path]:
    """Draw all results that have a plot.

    Args:
        results: Folder of the results.
        pictures: Folder for the images.
    """
    present = [name for name in PLOTS if (Path(results) / f"{name}.json").exists()]
    if not present:
        raise ValueError(
            f"results: expected results of benchmarks in {results}, found none: run one first"
        )
    return [draw(Path(results) / f"{name}.json", Path(pictures)) for name in present]


def draw(result: Path, folder: Path) -> Path:
    """Draw one result; the image names device and commit."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    record: Record = json.loads(result.read_text())
    title, plot = PLOTS[record["benchmark"]]
    figure, panel = plt.subplots(layout="constrained")
    plot(record, panel)
    figure.set_size_inches(9, 1.6 + 0.4 * len(panel.patches))
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(title, loc="left")
    figure.supxlabel(source(record), fontsize=8, color="0.4")
    path = folder / f"bench_{record['benchmark']}.png"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(path)
    return path


def source(record: Record) -> str:
    """Return a line with the origin of a result.

    >>> record = {"device": "CPU", "threads": 1, "commit": "abc", "dirty": True}
    >>> source({**record, "date": "2026-01-01T00", "versions": {"torch": "2.13"}})
    'CPU, 1 thread, torch 2.13, commit abc with changes, 2026-01-01'
    """
    threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
    commit = record["commit"] + (" with changes" if record["dirty"] else "")
    return (
        f"{record['device']}, {threads}, torch {record['versions']['torch']}, "
        f"commit {commit}, {record['date'][:10]}"
    )


if __name__ == "__main__":
    harness.command_line(plots)
