"""Tables of comparisons on several corpora, from ``benchmarks/results``.

``python -m benchmarks.evidence --write true`` fills the tables of ``docs/evidence.md`` and of
``docs/baselines.md``.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import mean
from typing import Any

from benchmarks import harness
from benchmarks.pages import filled, markdown

CORPORA = {"hpo": "HPO", "sotu": "State of the Union", "factbook": "World Factbook"}
BUCKETS = ("low", "mid", "high")
# Arms of the recipe without one of its remedies.
WITHOUT = {
    "noise": "all_but_noise",
    "decay": "all_but_decay",
    "average": "all_but_average",
    "dropout": "all_but_dropout",
    "fresh cuts": "noise_decay_average_dropout",
}

Record = dict[str, Any]


def read(comparison: str) -> dict[str, Record]:
    """Read ``comparison.json`` of each corpus on which a comparison was run, by corpus.

    Args:
        comparison: Name of its config in ``configs/comparisons/``.
    """
    paths = {name: harness.ROOT / harness.RESULTS / f"{comparison}_{name}.json" for name in CORPORA}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def number(value: float, sign: bool = False) -> str:
    """Return a loss, or a difference of losses, in nats per token.

    >>> number(-0.0614, sign=True)
    '−0.061'
    """
    return f"{value:{'+' if sign else ''}.3f}".replace("-", "−")


def against_plain(arm: Record, metric: str) -> str:
    """Return the difference from plain with its interval, and the verdict if there is one."""
    found = arm["metrics"][metric]
    if "difference" not in found:
        return number(found["mean"])
    low, high = (number(bound, sign=True) for bound in found["interval"])
    verdict = found["verdict"] if found["verdict"] in ("better", "worse") else ""
    return f"{number(found['difference'], sign=True)} ({low} to {high}) {verdict}".strip()


def by_corpus(records: dict[str, Record], metric: str) -> str:
    """Return a table with the difference from plain of each arm on each corpus."""
    return each_arm(records, lambda _, arm: against_plain(arm, metric))


def selected(records: dict[str, Record]) -> str:
    """Return a table of the strength that validation selected, and of the best epoch by seed."""
    return each_arm(records, lambda _, arm: _selected(arm))


def by_strength(records: dict[str, Record]) -> str:
    """Return a table of validation losses of one seed minus that of plain, by strength."""
    return each_arm(records, _by_strength)


def each_arm(records: dict[str, Record], cell: Callable[[Record, Record], str]) -> str:
    """Return a table with a row for each arm and a column for each corpus.

    Args:
        records: Comparisons by corpus.
        cell: Text for a comparison and one of its arms.
    """
    arms = dict.fromkeys(name for record in records.values() for name in record["arms"])
    return markdown(
        ["arm", *(CORPORA[corpus] for corpus in records)],
        [
            [
                name,
                *(
                    cell(record, record["arms"][name]) if name in record["arms"] else ""
                    for record in records.values()
                ),
            ]
            for name in arms
        ],
    )


def _selected(arm: Record) -> str:
    epochs = ", ".join(f"{run['best_epoch']:g}" for run in arm["runs"])
    strength = " ".join(f"{value:g}" for value in arm["strength"].values())
    return f"{strength}; {epochs}" if strength else epochs


def _by_strength(record: Record, arm: Record) -> str:
    [plain] = record["arms"][record["baseline"]]["trials"]
    return ", ".join(
        " ".join([*(f"{value:g}:" for value in each["strength"].values()), loss])
        for each in arm["trials"]
        for loss in [number(each["score"] - plain["score"], sign=True)]
    )


def validation_means(record: Record) -> dict[str, float]:
    """Return the lowest validation loss of each arm at its selected strength, mean over seeds."""
    scores = defaultdict[tuple[str, str], list[float]](list)
    for run in record["runs"]:
        scores[run["arm"], str(run["strength"])].append(run["validation"]["best/loss"])
    # Other strengths were trained with fewer seeds.
    full = len(record["seeds"])
    return {arm: mean(found) for (arm, _), found in scores.items() if len(found) == full}


def on_validation(records: dict[str, Record], pairs: dict[str, tuple[str, str]]) -> str:
    """Return a table of differences of validation losses, by corpus, and of their means.

    Args:
        records: Comparisons by corpus.
        pairs: Arm, and the arm whose loss is subtracted, by the name of the row.
    """
    losses = [validation_means(record) for record in records.values()]
    differences = {
        name: [found[arm] - found[other] for found in losses]
        for name, (arm, other) in pairs.items()
    }
    return markdown(
        ["", *(CORPORA[corpus] for corpus in records), "mean"],
        [
            [name, *(number(each, sign=True) for each in (*found, mean(found)))]
            for name, found in differences.items()
        ],
    )


def trials(records: dict[str, Record]) -> Iterator[list[str]]:
    """Yield the lowest validation loss of each trial of one seed, minus that of plain."""
    for corpus, record in records.items():
        [plain] = record["arms"][record["baseline"]]["trials"]
        for name, arm in record["arms"].items():
            if name != record["baseline"]:
                scores = [number(each["score"] - plain["score"], True) for each in arm["trials"]]
                yield [CORPORA[corpus], name, *scores]


def pages() -> dict[str, dict[str, str]]:
    """Return the tables by their markers, for each page."""
    final = read("final_model")
    return {
        "docs/evidence.md": evidence_tables(),
        "docs/baselines.md": {
            "final selected": selected(final),
            "final strengths": by_strength(final),
            **{
                f"final {moment}": by_corpus(final, f"{moment}/loss") for moment in ("best", "last")
            },
        },
    }


def evidence_tables() -> dict[str, str]:
    """Return the tables of the evidence page by their markers."""
    readings, recipe = read("readings"), read("recipe")
    arms = next(iter(readings.values()))["arms"].keys() - {"plain"}
    return {
        "recipe validation": on_validation(
            recipe, {name: (without, "all") for name, without in WITHOUT.items()}
        ),
        "recipe best": by_corpus(recipe, "best/loss"),
        "recipe last": by_corpus(recipe, "last/loss"),
        **{
            f"recipe {bucket}": by_corpus(recipe, f"best/loss_{bucket}_entropy")
            for bucket in BUCKETS
        },
        "readings validation": on_validation(
            readings, {name: (name, "plain") for name in sorted(arms)}
        ),
        "readings": by_corpus(readings, "best/loss"),
        "rates": markdown(["corpus", "arm", "5 %", "10 %", "15 %", "20 %"], trials(readings)),
    }


def evidence(write: bool = False) -> None:
    """Print the tables.

    Args:
        write: Whether to write the pages.
    """
    for page, tables in pages().items():
        for name, table in tables.items():
            print(f"{name}\n{table}\n")
        if write:
            path = harness.ROOT / page
            path.write_text(filled(path.read_text(), tables))


if __name__ == "__main__":
    harness.command_line(evidence)
