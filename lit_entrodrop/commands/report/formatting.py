"""The values of a comparison in words and digits, as the terminal and the page tell them."""

from collections.abc import Iterable, Mapping
from typing import Any

LOSS, LAST = "best/loss", "last/loss"

# Beside the losses, in the order in which they are told.
KINDS = {
    "gap": "gap",
    "clean_train_loss": "clean-train loss",
    "forgetting": "forgetting",
    "memorized": "memorised",
    "drop_rate": "drop rate",
    "seconds_per_step": "seconds per step",
    "best_epoch": "best epoch",
}
SHARES = ("memorized", "drop_rate")
NOT_NATS = ("seconds_per_step", "best_epoch")
NOTHING = "–"


def by_group(names: Iterable[str]) -> dict[str, list[str]]:
    """Sort values into groups: the losses over all tokens, those of buckets, and what is beside.

    Args:
        names: of values, as ``comparison.json`` has them.

    >>> by_group(["best/loss", "best/loss_low_entropy", "drop_rate", "last/gap", "last/loss"])
    {'loss': ['best/loss', 'last/loss'], 'buckets': ['best/loss_low_entropy'], \
'beside': ['last/gap', 'drop_rate']}
    """
    known = list(dict.fromkeys(names))
    order = list(KINDS)
    beside = [name for name in known if _kind(name) in KINDS]
    return {
        "loss": [name for name in (LOSS, LAST) if name in known],
        "buckets": [name for name in known if "/loss_" in name],
        "beside": sorted(beside, key=lambda name: order.index(_kind(name))),
    }


def title(name: str) -> str:
    """Say in words what a value is; "best" and "last" are the evaluations it was taken at.

    >>> title("best/loss_low_entropy"), title("last/gap"), title("last/loss_bucket_4_entropy")
    ('best loss, low entropy', 'gap, at last', 'last loss, bucket 4')
    """
    moment, _, kind = name.rpartition("/")
    if kind in KINDS:
        return f"{KINDS[kind]}, at {moment}" if moment else KINDS[kind]
    bucket = kind.removeprefix("loss").removeprefix("_").removesuffix("_entropy")
    words = bucket.replace("_", " ") if "_" in bucket else f"{bucket} entropy"
    return f"{moment} loss, {words}" if bucket else f"{moment} loss"


def number(name: str, value: float) -> str:
    """Write a value down.

    >>> number("best/loss", 3.25), number("drop_rate", 0.25), number("best_epoch", 2.0)
    ('3.2500', '25.0%', '2')
    """
    kind = _kind(name)
    return f"{value:{'.1%' if kind in SHARES else '.3g' if kind in NOT_NATS else '.4f'}}"


def difference(name: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Write a difference and its interval down, empty where there is none.

    Args:
        name: of the value.
        found: with ``difference`` and ``interval``, as ``comparison.json`` has them.

    >>> difference("best/loss", {"difference": -0.5, "interval": [-0.75, -0.25]})
    ('-0.5000', '[-0.7500, -0.2500]')
    >>> difference("drop_rate", {"difference": 0.125, "interval": None})
    ('+12.5 points', '')
    """
    if "difference" not in found:
        return "", ""
    unit = " points" if _kind(name) in SHARES else ""
    text = _signed(name, found["difference"]) + unit
    if not found["interval"]:
        return text, ""
    low, high = found["interval"]
    return text, f"[{_signed(name, low)}, {_signed(name, high)}]"


def _signed(name: str, value: float) -> str:
    kind = _kind(name)
    if kind in SHARES:
        return f"{100 * value:+.1f}"
    return f"{value:+.3g}" if kind in NOT_NATS else f"{value:+.4f}"


def _kind(name: str) -> str:
    return name.rpartition("/")[2]
