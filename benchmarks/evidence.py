"""Tables of comparisons on several corpora, from ``benchmarks/results``.

``python -m benchmarks.evidence --write true`` fills the tables of ``docs/evidence.md`` and of
``docs/baselines.md``.
"""

import json
from collections.abc import Callable
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


def each_arm(records: dict[str, Record], cell: Callable[[Record, Record], str]) -> str:
    """Return a table with a row for each arm and a column for each corpus.

    Args:
        records: Comparisons by corpus.
        cell: Text for an arm and plain.
    """
    arms = dict.fromkeys(name for record in records.values() for name in record["arms"])
    rows = []
    for name in arms:
        found = [(record["arms"].get(name), plain_of(record)) for record in records.values()]
        rows.append([name, *("" if arm is None else cell(arm, plain) for arm, plain in found)])
    return markdown(["arm", *(CORPORA[corpus] for corpus in records)], rows)


def plain_of(record: Record) -> Record:
    """Return the arm that the others are compared with."""
    found: Record = record["arms"][record["baseline"]]
    return found


def by_corpus(records: dict[str, Record], metric: str) -> str:
    """Return a table with the difference from plain of each arm on each corpus."""
    return each_arm(records, lambda arm, _: against_plain(arm, metric))


def strength_and_epochs(arm: Record, _: Record) -> str:
    """Return the strength that validation selected, and the best epoch of each seed."""
    epochs = ", ".join(f"{run['best_epoch']:g}" for run in arm["runs"])
    return "; ".join([*(f"{value:g}" for value in arm["strength"].values()), epochs])


def by_strength(arm: Record, plain: Record) -> str:
    """Return the validation loss of one seed at each strength, minus that of plain."""
    names = [
        ":".join(f"{value:g}" for value in each["strength"].values()) for each in arm["trials"]
    ]
    differences = zip(names, trial_differences(arm, plain), strict=True)
    return ", ".join(f"{name}: {loss}" if name else loss for name, loss in differences)


def trial_differences(arm: Record, plain: Record) -> list[str]:
    """Return the lowest validation loss of each trial of one seed, minus that of plain."""
    [trial] = plain["trials"]
    return [number(each["score"] - trial["score"], sign=True) for each in arm["trials"]]


def averages_after_the_last_epoch() -> str:
    """Return a table of validation losses of averaged weights minus those of the raw ones."""
    path = harness.ROOT / harness.RESULTS / "averages_last.json"
    corpora = json.loads(path.read_text())["corpora"]
    arms = next(iter(corpora.values()))
    return markdown(
        ["arm", *(CORPORA[corpus] for corpus in corpora)],
        [
            [
                arm,
                *(
                    number(mean(run["averaged"] - run["raw"] for run in found[arm]), sign=True)
                    for found in corpora.values()
                ),
            ]
            for arm in arms
        ],
    )


def validation_means(record: Record) -> dict[str, float]:
    """Return the lowest validation loss of each arm at its selected strength, mean over seeds."""
    return {
        name: mean(run["best/score"] for run in arm["runs"]) for name, arm in record["arms"].items()
    }


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


def rates(records: dict[str, Record]) -> str:
    """Return a table of validation losses minus that of plain, by the share of dropped tokens."""
    rows = [
        [CORPORA[corpus], name, *trial_differences(arm, plain_of(record))]
        for corpus, record in records.items()
        for name, arm in record["arms"].items()
        if name != record["baseline"]
    ]
    return markdown(["corpus", "arm", "5 %", "10 %", "15 %", "20 %"], rows)


def pages() -> dict[str, dict[str, str]]:
    """Return the tables by their markers, for each page."""
    final = read("final_model")
    return {
        "docs/evidence.md": evidence_tables(),
        "docs/baselines.md": {
            "final best": by_corpus(final, "best/loss"),
            "final last": by_corpus(final, "last/loss"),
            "final averages": averages_after_the_last_epoch(),
            "final selected": each_arm(final, strength_and_epochs),
            "final strengths": each_arm(final, by_strength),
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
        "rates": rates(readings),
        "schedule": by_corpus(read("readings_schedule"), "best/loss"),
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
