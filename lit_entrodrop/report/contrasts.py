"""What a comparison of runs found, as the page shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_entrodrop.report.drawing import CLEAN, INK, MUTED, VALIDATION, Picture, Sheet, picture

LOSSES = ("loss", "best/loss")  # the metric that goes without saying


@dataclass(frozen=True)
class Contrast:
    """An arm of a comparison against another, by one metric.

    Attributes:
        label: both arms, and the metric unless it is the loss.
        difference: the arm minus the other; below zero is better for losses.
        interval: 95 % confidence interval of it, if there is one.
        p: of no difference, uncorrected and corrected for the number of contrasts.
        verdict: in a word or two.
        sentence: that says what was found.
    """

    label: str
    difference: float
    interval: tuple[float, float] | None
    p: tuple[float | None, float | None]
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Arm:
    """One way of training that was compared."""

    name: str
    runs: int
    chosen: str
    sentence: str
    means: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """Arms, contrasts between them, and what else should be known."""

    baseline: str
    split: str
    arms: list[Arm]
    contrasts: list[Contrast]
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that arms have."""
        return list(dict.fromkeys(name for arm in self.arms for name in arm.means))

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words, each once."""
        told = [*(arm.sentence for arm in self.arms), *(each.sentence for each in self.contrasts)]
        return [sentence for sentence in dict.fromkeys(told) if sentence]


def as_comparison(values: Mapping[str, Any]) -> Comparison:
    """Read the values of ``comparison.json``; whatever it lacks is left out.

    >>> as_comparison({"arms": {"plain": {}}}).arms[0].name
    'plain'
    """
    arms = dict(values.get("arms") or {})
    baseline = str(values.get("baseline") or next(iter(arms), ""))
    return Comparison(
        baseline=baseline,
        split=str(values.get("split") or ""),
        arms=[_arm(name, arm or {}) for name, arm in arms.items()],
        contrasts=_contrasts(values, arms, baseline),
        notes=[str(note) for note in values.get("notes") or []],
    )


def forest(comparison: Comparison, folder: Path, name: str) -> Picture | None:
    """Draw each difference with its interval beside zero."""
    shown = comparison.contrasts
    if not shown:
        return None

    def draw(sheet: Sheet) -> Figure:
        row_height = 0.62 if sheet.narrow else 0.36
        size = sheet.width, row_height * len(shown) + 0.9
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for row, contrast in enumerate(reversed(shown)):
            _draw_row(axes, row, contrast, sheet.narrow)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(ylim=(-0.6, len(shown) - 0.4), xlabel="difference (nats per token)")
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if sheet.narrow else 8))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        labels = [] if sheet.narrow else [each.label for each in reversed(shown)]
        axes.set_yticks(range(len(labels)), labels, color=INK)
        return figure

    told = "; ".join(f"{each.label}: {number(each)}" for each in shown)
    caption = (
        "Differences with 95 % confidence intervals; left of zero is lower, for losses better. An "
        "interval that reaches over zero shows no difference."
    )
    return picture(folder, name, draw, f"Forest plot. {told}.", caption)


def number(contrast: Contrast) -> str:
    """Return a difference and its interval as text.

    >>> number(Contrast("", -0.1, (-0.2, 0.0), (None, None), "", ""))
    '−0.100 [−0.200, +0.000]'
    """
    text = f"{contrast.difference:+.3f}"
    if contrast.interval:
        text += f" [{contrast.interval[0]:+.3f}, {contrast.interval[1]:+.3f}]"
    return text.replace("-", "−")


def readable(metric: str) -> str:
    """Return the name of a metric in words.

    >>> readable("best/loss_low_entropy")
    'best loss low entropy'
    """
    return metric.replace("/", " ").replace("_", " ")


def _draw_row(axes: Axes, row: int, contrast: Contrast, narrow: bool) -> None:
    low, high = contrast.interval or (contrast.difference, contrast.difference)
    unclear = contrast.interval is None or low <= 0 <= high
    color = MUTED if unclear else CLEAN if high < 0 else VALIDATION
    axes.plot([low, high], [row, row], color=color, linewidth=2.2)
    axes.plot(contrast.difference, row, "s", color=color, markersize=6)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    if narrow:
        axes.annotate(contrast.label, (0, row), xytext=(0, 9), fontweight="bold", **place)
        axes.annotate(number(contrast), (0, row), xytext=(0, -14), color=MUTED, **place)
    else:
        axes.annotate(number(contrast), (1, row), xytext=(8, 0), va="center", **place)


def _arm(name: str, arm: Mapping[str, Any]) -> Arm:
    metrics = arm.get("metrics") or {}
    return Arm(
        name=str(name),
        runs=len(arm.get("runs") or []),
        chosen=str(arm.get("chosen") or ""),
        sentence=_sentence(name, arm),
        means={str(m): _number((v or {}).get("mean")) for m, v in metrics.items()},
    )


def _contrasts(values: Mapping[str, Any], arms: Mapping[str, Any], base: str) -> list[Contrast]:
    rows = [
        {**contrast, "label": f"{contrast.get('arm', '?')} − {contrast.get('against') or base}"}
        for contrast in values.get("contrasts") or []
    ]
    if not rows:
        rows = [
            {**estimate, "metric": metric, "label": f"{name} − {base}"}
            for name, arm in arms.items()
            for metric, estimate in ((arm or {}).get("metrics") or {}).items()
            if estimate
        ]
    return [_contrast(row) for row in rows if _number(row.get("difference")) is not None]


def _contrast(row: Mapping[str, Any]) -> Contrast:
    metric = str(row.get("metric") or LOSSES[0])
    ends = [_number(end) for end in row.get("interval") or []]
    interval = (ends[0], ends[1]) if len(ends) == 2 and None not in ends else None
    label = row["label"] if metric in LOSSES else f"{row['label']}, {readable(metric)}"
    return Contrast(
        label=str(label),
        difference=float(row["difference"]),
        interval=interval,  # type: ignore[arg-type]
        p=(_number(row.get("p")), _number(row.get("p_corrected"))),
        verdict=str(row.get("verdict") or ""),
        sentence=_sentence(label, row),
    )


def _sentence(name: str, found: Mapping[str, Any]) -> str:
    if found.get("sentence"):
        return str(found["sentence"])
    return f"{name}: {found['verdict']}" if found.get("verdict") else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None
