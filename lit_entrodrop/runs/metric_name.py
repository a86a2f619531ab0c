"""Names of metrics, as in ``metrics.csv`` and ``comparison.json``."""

import re
from dataclasses import dataclass

ORDER = ("low", "mid", "high")
BUCKET = re.compile(rf"(.+)_({'|'.join(ORDER)}|bucket_\d+)_entropy")


@dataclass(frozen=True)
class MetricName:
    """Name of a metric: its split, its kind, and the bucket of its tokens.

    Args:
        split: Prefix of the name: "gap", "train", or that of a split, by :func:`prefix_of`; in a
            comparison "best" or "last"; empty for none.
        kind: Name of the metric, such as "loss".
        bucket: Name of the entropy bucket; None for all tokens. Default: None.

    >>> str(MetricName("val", "loss", "low"))
    'val/loss_low_entropy'
    >>> MetricName.parse("gap/loss")
    MetricName(split='gap', kind='loss', bucket=None)
    """

    split: str
    kind: str
    bucket: str | None = None

    def __str__(self) -> str:
        start = f"{self.split}/" if self.split else ""
        return start + self.kind + (f"_{self.bucket}_entropy" if self.bucket else "")

    @classmethod
    def parse(cls, name: str) -> "MetricName":
        """Parse the name of any column of ``metrics.csv``.

        >>> MetricName.parse("val/accuracy_bucket_4_entropy").bucket
        'bucket_4'
        """
        split, _, rest = name.rpartition("/")
        kind, bucket = match.groups() if (match := BUCKET.fullmatch(rest)) else (rest, None)
        return cls(split, kind, bucket)


def prefix_of(split: str) -> str:
    """Return the prefix of the metrics of a split.

    >>> prefix_of("validation"), prefix_of("exam")
    ('val', 'exam')
    """
    return {"validation": "val"}.get(split, split)


def of_average(name: str) -> str | None:
    """Return the name of an evaluation's metric for the averaged weights; None if it has none.

    >>> of_average("val/loss_low_entropy"), of_average("train/loss")
    ('val_average/loss_low_entropy', None)
    """
    split, _, kind = name.rpartition("/")
    if split in ("", "train", TASK) or is_of_average(name):
        return None
    return f"{split}{AVERAGED}/{kind}"


def is_of_average(name: str) -> bool:
    """Return whether a metric is one of the averaged weights.

    >>> is_of_average("exam_average/loss"), is_of_average("exam/loss")
    (True, False)
    """
    return name.rpartition("/")[0].endswith(AVERAGED)


# Ends the prefix of a metric of averaged weights, and the name of no evaluation set.
AVERAGED = "_average"
# Prefixes of metrics, and names of splits, that no evaluation set may have.
RESERVED_SPLITS = {
    *("train", "validation", "val", "test", "holdout", "clean_train", "forgetting", "gap"),
    *("best", "last", "replay", "task"),
}
VALIDATION_LOSS = str(MetricName("val", "loss"))
TRAIN_LOSS = str(MetricName("train", "loss"))
AUXILIARY_LOSS = str(MetricName("train", "aux_loss"))
TASK = "task"  # prefix of scores on a task
SKIPPED_STEPS = str(MetricName("train", "skipped_steps"))


def title_of_bucket(bucket: str | None) -> str:
    """Return the title of an entropy bucket; None stands for all tokens.

    >>> title_of_bucket("mid"), title_of_bucket("bucket_4")
    ('mid entropy', 'bucket 4')
    """
    if bucket is None:
        return "all tokens"
    return f"{bucket} entropy" if bucket in ORDER else bucket.replace("_", " ")


def by_entropy(bucket: str) -> tuple[int, int]:
    """Return a key that sorts buckets from low to high entropy.

    >>> sorted(["bucket_10", "bucket_9"], key=by_entropy)
    ['bucket_9', 'bucket_10']
    """
    # Two or three buckets have names, more have numbers.
    number = bucket.rpartition("_")[2]
    return (
        ORDER.index(bucket) if bucket in ORDER else len(ORDER),
        int(number) if number.isdecimal() else 0,
    )
