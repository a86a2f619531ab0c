"""What a comparison has found, on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

STYLES = {"better": "green", "worse": "red"}
NOTHING = "–"


def show(comparison: Mapping[str, Any], console: Console) -> None:
    """Print the table, the verdicts and the notes.

    Args:
        comparison: what ``comparison.json`` keeps.
        console: where to.
    """
    console.print(table(comparison))
    told = [arm["sentence"] for arm in comparison["arms"].values()]
    told += [each["sentence"] for each in comparison["contrasts"] if each["is_contrast"]]
    for sentence in filter(None, told):
        console.print(f"• {sentence}", markup=False, highlight=False)
    for note in comparison["notes"]:
        console.print(note, style="dim", markup=False, highlight=False)


def table(comparison: Mapping[str, Any]) -> Table:
    """Lay out the arms.

    Args:
        comparison: what ``comparison.json`` keeps.
    """
    arms = comparison["arms"]
    buckets = _buckets(arms)
    title, split = escape(comparison["title"]), comparison["split"]
    result = Table(
        title=f"{title}: loss in nats per token on the {split} split, mean over seeds",
        caption=f"below: difference to {comparison['baseline']} and its 95 % interval",
    )
    result.add_column("arm", no_wrap=True)
    result.add_column("best", justify="right", no_wrap=True)
    result.add_column("last", justify="right", no_wrap=True)
    for bucket in buckets:
        result.add_column(f"best, {bucket}", justify="right")
    for heading in ("gap", "clean train", "forgotten", "by heart", "dropped", "s/step"):
        if any(_cell(arm, heading) != NOTHING for arm in arms.values()):
            result.add_column(heading, justify="right")
    result.add_column("verdict", no_wrap=True)
    for name, arm in arms.items():
        result.add_row(*_row(name, arm, buckets, [str(c.header) for c in result.columns]))
    return result


# The heading of a column, and what stands in it: the last epoch's, but for the rates.
BESIDE = {
    "gap": ("last/gap", "{:.3f}"),
    "clean train": ("last/clean_train_loss", "{:.3f}"),
    "forgotten": ("last/forgetting", "{:+.3f}"),
    "by heart": ("last/memorized", "{:.1%}"),
    "dropped": ("drop_rate", "{:.1%}"),
    "s/step": ("seconds_per_step", "{:.3g}"),
}


def _row(name: str, arm: Mapping[str, Any], buckets: list[str], headings: list[str]) -> list[str]:
    losses = ["best/loss", "last/loss", *(f"best/loss_{bucket}_entropy" for bucket in buckets)]
    verdict = arm["verdict"] or "baseline"
    style = STYLES.get(verdict)
    return [
        escape("\n".join(filter(None, [name, arm["chosen"]]))),
        *(_loss(arm["metrics"].get(metric)) for metric in losses),
        *(_cell(arm, heading) for heading in BESIDE if heading in headings),
        f"[{style}]{verdict}[/]" if style else verdict,
    ]


def _loss(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return NOTHING
    text = f"{metric['mean']:.4f}"
    if metric.get("difference") is not None:
        text += f"\n{metric['difference']:+.4f}"
    if metric.get("interval"):
        low, high = metric["interval"]
        text += f"\n{low:+.3f} … {high:+.3f}"
    return text


def _cell(arm: Mapping[str, Any], heading: str) -> str:
    metric, form = BESIDE[heading]
    found = arm["metrics"].get(metric)
    return NOTHING if found is None else form.format(found["mean"])


def _buckets(arms: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for arm in arms.values() for name in arm["metrics"])
    start, end = "best/loss_", "_entropy"
    return [name[len(start) : -len(end)] for name in names if name.startswith(start)]
