"""Titles and formats of the values of a comparison, on the terminal and on the page."""

from collections.abc import Iterable, Mapping
from typing import Any

from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics
from lit_entrodrop.evaluation.task.scoring import SCORES
from lit_entrodrop.runs.metric_name import TASK, MetricName, title_of_bucket

LOSS, LAST = "best/loss", "last/loss"

# Scores on a task, by name: their titles.
TASKS = {f"{TASK}_{name}": f"task ({name.replace('_', ' ')})" for name in SCORES}
# Values that no token metric gives, in the order of the tables.
KINDS = {
    "gap": "gap",
    "clean_train_loss": "clean-train loss",
    "forgetting": "forgetting",
    "memorized": "memorized",
    **TASKS,
    "drop_rate": "drop rate",
    "seconds_per_step": "seconds per step",
    "best_epoch": "best epoch",
}
FORMS = {
    **dict.fromkeys(("memorized", "drop_rate", *TASKS), ".1%"),
    "seconds_per_step": ".3g",
    "best_epoch": ".3g",
}
NOTHING = "–"


def by_group(names: Iterable[str]) -> dict[str, list[str]]:
    """Group values of ``comparison.json``: losses, on sets and of buckets, scores, and others.

    >>> by_group(["best/loss", "best/exam/loss", "best/loss_low_entropy", "drop_rate", "last/gap"])
    {'loss': ['best/loss'], 'sets': ['best/exam/loss'], 'buckets': ['best/loss_low_entropy'], \
'task': [], \
'others': ['last/gap', 'drop_rate']}
    """
    known = {name: MetricName.parse(name) for name in dict.fromkeys(names)}
    order = [*all_token_metrics(), *KINDS]
    task = [name for name, each in known.items() if each.kind in TASKS]
    losses = {name: each for name, each in known.items() if each.kind == "loss"}
    others = [n for n, each in known.items() if each.kind != "loss" and each.kind in order]
    return {
        "loss": [name for name in (LOSS, LAST) if name in known],
        "sets": [n for n, each in losses.items() if "/" in each.split and not each.bucket],
        "buckets": [n for n, each in losses.items() if each.bucket],
        "task": task,
        "others": sorted(
            (name for name in others if name not in task),
            key=lambda name: order.index(known[name].kind),
        ),
    }


def title(name: str) -> str:
    """Return the title of a value; "best" and "last" are the evaluations it was taken at.

    >>> title("best/loss_low_entropy"), title("last/gap"), title("last/loss_bucket_4_entropy")
    ('best loss, low entropy', 'gap, at last', 'last loss, bucket 4')
    >>> title("best/accuracy"), title("best/exam/loss_low_entropy")
    ('accuracy, at best', 'loss on exam, low entropy, at best')
    """
    parsed = MetricName.parse(name)
    moment, _, evaluation_set = parsed.split.partition("/")
    metric = all_token_metrics().get(parsed.kind)
    text = metric.title if metric else KINDS[parsed.kind]
    text += f" on {evaluation_set}" if evaluation_set else ""
    bucket = f", {title_of_bucket(parsed.bucket)}" if parsed.bucket else ""
    if parsed.kind == "loss" and not evaluation_set:
        return f"{moment} {text}{bucket}"
    return f"{text}{bucket}, at {moment}" if moment else text


def number(name: str, value: float) -> str:
    """Format a value.

    >>> number("best/loss", 3.25), number("drop_rate", 0.25), number("best_epoch", 2.0)
    ('3.2500', '25.0%', '2')
    """
    return f"{value:{_form(name)}}"


def difference(name: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Format a difference and its interval in ``comparison.json``; empty if there is none.

    >>> difference("best/loss", {"difference": -0.5, "interval": [-0.75, -0.25]})
    ('-0.5000', '[-0.7500, -0.2500]')
    >>> difference("drop_rate", {"difference": 0.125, "interval": None})
    ('+12.5 points', '')
    """
    if "difference" not in found:
        return "", ""
    unit = " points" if _form(name).endswith("%") else ""
    text = _signed(name, found["difference"]) + unit
    if not found["interval"]:
        return text, ""
    low, high = found["interval"]
    return text, f"[{_signed(name, low)}, {_signed(name, high)}]"


def _signed(name: str, value: float) -> str:
    form = _form(name)
    return f"{100 * value:+{form[:-1]}f}" if form.endswith("%") else f"{value:+{form}}"


def _form(name: str) -> str:
    kind = MetricName.parse(name).kind
    metric = all_token_metrics().get(kind)
    return metric.form if metric else FORMS.get(kind, ".4f")
