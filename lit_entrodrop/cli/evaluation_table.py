"""Table of the metrics that `validate` and `test` compute."""

from collections.abc import Mapping

from rich.table import Table

from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics
from lit_entrodrop.runs.metric_name import TASK, MetricName, by_entropy, title_of_bucket

# Of other splits, the prefix of their metrics is their title.
TITLES = {"val": "validation", "clean_train": "clean train", "forgetting": "general"}


def evaluation_table(metrics: Mapping[str, float]) -> Table:
    """Return a table of metrics, given by name: a row per split and metric, a column per bucket.

    >>> evaluation_table({"val/loss": 2.0, "val/loss_low_entropy": 1.0}).row_count
    1
    """
    parsed = [MetricName.parse(name) for name in metrics]
    buckets = {each.bucket for each in parsed} - {None}
    groups = [None, *sorted(filter(None, buckets), key=by_entropy)]
    table = Table("text", "metric", title="Loss in nats per token, by entropy before training")
    for group in groups:
        table.add_column(title_of_bucket(group), justify="right")
    titles = {each.name: each.title for each in all_token_metrics().values()}
    titles["memorized"] = "memorized"
    for split in dict.fromkeys(each.split for each in parsed):
        for kind, title in titles.items():
            names = [str(MetricName(split, kind, group)) for group in groups]
            if names[0] in metrics:
                table.add_row(
                    TITLES.get(split, split),
                    title,
                    *(_formatted(metrics.get(name)) for name in names),
                )
    for name, value in zip(parsed, metrics.values(), strict=True):
        if name.split == TASK:
            table.add_row(TASK, name.kind.replace("_", " "), _formatted(value))
    return table


def _formatted(value: float | None) -> str:
    return "" if value is None else f"{float(value):.5g}"
