"""Tables of comparisons on several corpora: ``benchmarks/results`` to ``docs/evidence.md``.

``python -m benchmarks.evidence --write true`` fills the tables of the page.
"""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks import harness
from benchmarks.pages import filled, markdown

PAGE = "docs/evidence.md"
CORPORA = {"hpo": "HPO", "sotu": "State of the Union", "factbook": "World Factbook"}
BUCKETS = ("low", "mid", "high")

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
    """Return a table with a row for each arm and a column for each corpus with results."""
    arms = dict.fromkeys(name for record in records.values() for name in record["arms"])
    cells = {name: [record["arms"].get(name) for record in records.values()] for name in arms}
    return markdown(
        ["arm", *(CORPORA[corpus] for corpus in records)],
        [
            [name, *("" if arm is None else against_plain(arm, metric) for arm in found)]
            for name, found in cells.items()
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


def tables() -> dict[str, str]:
    """Return the tables by their markers in the page."""
    readings, recipe = read("readings"), read("recipe")
    return {
        "recipe best": by_corpus(recipe, "best/loss"),
        "recipe last": by_corpus(recipe, "last/loss"),
        **{
            f"recipe {bucket}": by_corpus(recipe, f"best/loss_{bucket}_entropy")
            for bucket in BUCKETS
        },
        "readings": by_corpus(readings, "best/loss"),
        "rates": markdown(["corpus", "arm", "5 %", "10 %", "15 %", "20 %"], trials(readings)),
    }


def evidence(write: bool = False) -> None:
    """Print the tables.

    Args:
        write: Whether to write ``docs/evidence.md``.
    """
    for name, table in tables().items():
        print(f"{name}\n{table}\n")
    if write:
        page = harness.ROOT / PAGE
        page.write_text(filled(page.read_text(), tables()))


if __name__ == "__main__":
    harness.command_line(evidence)
