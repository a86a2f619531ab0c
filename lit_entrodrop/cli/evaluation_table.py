"""What `validate` and `test` find, as a table for the terminal."""

from collections.abc import Mapping

from rich.table import Table

TEXTS = {
    "val": "validation",
    "test": "test",
    "clean_train": "clean train",
    "gap": "gap",
    "forgetting": "general",
}
KINDS = ("loss", "perplexity", "accuracy", "memorized")


def evaluation_table(metrics: Mapping[str, float]) -> Table:
    """Lay out metrics by split and entropy bucket.

    Args:
        metrics: by name, as they are logged: ``val/loss``, ``val/loss_low_entropy``, …

    >>> evaluation_table({"val/loss": 2.0, "val/loss_low_entropy": 1.0}).row_count
    1
    """
    buckets = dict.fromkeys(_bucket(name) for name in metrics if _bucket(name))
    table = Table(title="Loss in nats per token; buckets by entropy before training")
    table.add_column("text")
    table.add_column("metric")
    for column in ("all tokens", *buckets):
        table.add_column(column, justify="right")
    for split, text in TEXTS.items():
        for kind in KINDS:
            names = [f"{split}/{kind}", *(f"{split}/{kind}_{bucket}_entropy" for bucket in buckets)]
            if names[0] in metrics:
                table.add_row(text, kind, *(_told(metrics.get(name)) for name in names))
    return table


def _bucket(name: str) -> str:
    _, found, rest = name.partition("loss_")
    return rest.removesuffix("_entropy") if found else ""


def _told(value: float | None) -> str:
    return "" if value is None else f"{float(value):.5g}"
