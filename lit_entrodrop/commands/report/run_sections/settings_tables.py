"""Tables of the settings, versions and data of a run."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lit_entrodrop.commands.report.records.run_record import RunRecord

SettingRows = list[tuple[str, str]]
TITLES = {
    "regularizers": "Regularizers",
    "optimizer": "Optimizer",
    "lr_schedule": "Learning rate schedule",
    "weight_decay_schedule": "Weight decay schedule",
    "groups": "Parameter groups",
    "average": "Average of the weights",
    "trainer": "Trainer",
    "data": "Data",
    "versions": "Versions",
}


def setting_tables(run: RunRecord) -> dict[str, SettingRows]:
    """Return the settings of a run as rows of name and value, by title of the table."""
    facts = run.info.get("provenance", {})
    tables = {title: list(_rows(facts[key])) for key, title in TITLES.items() if facts.get(key)}
    if facts and not facts.get("regularizers"):
        tables = {"Regularizers": [("none", "plain fine-tuning")], **tables}
    if facts.get("seed") is not None:
        tables.setdefault("Trainer", []).append(("seed", str(facts["seed"])))
    hashes = run.info.get("fingerprints", {})
    if hashes:
        tables["Data hashes"] = [(str(split), str(digest)) for split, digest in hashes.items()]
    if speed := _speed(run):
        tables["Measured speed (depends on the machine)"] = speed
    return tables


def _rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and text of each plain value; a class comes before its settings.

    >>> list(_rows([{"class_path": "a.B", "init_args": {"c": [2, 3]}}]))
    [('B', 'a.B'), ('c', '2, 3')]
    """
    if isinstance(value, Mapping) and "class_path" in value:
        path = str(value["class_path"])
        yield name or path.rpartition(".")[2], path
        yield from _rows(value.get("init_args", {}), name)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _rows(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for each in value:
            yield from _rows(each, name)
    elif value is not None:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _speed(run: RunRecord) -> SettingRows:
    units = {
        "tokens_per_second": ("tokens per second (median)", "{:,.0f}"),
        "seconds_per_step": ("seconds per step (median)", "{:.3g}"),
        "mfu": ("model FLOPs utilization (median)", "{:.1%}"),
        "memory_gb": ("peak memory (GB)", "{:.3g}"),
    }
    rows = []
    for column, (name, form) in units.items():
        values = run.speed.get(column, pd.Series(dtype=float)).dropna()
        if len(values):
            value = values.max() if column == "memory_gb" else values.median()
            rows.append((name, form.format(value)))
    return rows
