"""Scaling of each strategy at the shape of Llama-3.1-8B, by arithmetic; nothing is run.

``python -m benchmarks.scaling --write true`` writes the tables into ``docs/scaling.md`` and draws a
figure. Bytes are those of :mod:`lit_entrodrop.commands.plan.estimates.communication`, bandwidths
those of the manufacturers. In addition to the bandwidth, a ring needs one hop per device, of
``HOP`` seconds. All communication except the reductions of tensor parallelism, which the next layer
waits for, overlaps with a part of the computation, as in
:mod:`lit_entrodrop.commands.plan.estimates.speed`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import harness
from benchmarks.pages import filled, markdown
from benchmarks.scaling_model import ARRANGEMENTS, GPU, LENGTH, Step, flops_per_token, sizes
from lit_entrodrop.commands.plan.estimates.speed import OVERLAP
from lit_entrodrop.commands.report.rendering.plotting import SERIES
from lit_entrodrop.model.hardware import GB

PAGE = "docs/scaling.md"
FIGURE = "docs/images/scaling.svg"
DEVICES = (8, 16, 64, 256, 1024)
TOKENS = (4096, 16384)
BYTES_PER_TOKEN = 4.2
STEPS_PER_EPOCH = 20


def traffic_table() -> str:
    """Return memory and traffic of a device in a step with one micro-batch of 4,096 tokens."""
    rows = []
    for own in ARRANGEMENTS:
        cells = [own.name]
        for devices in (8, 64, 1024):
            step = Step(own, devices, TOKENS[0])
            sent = step.sent
            cells.append(f"{step.state_gb:.0f}")
            cells.append(f"{sent.intra_node / GB:.1f} + {sent.inter_node / GB:.1f}")
            cells.append(f"{step.communication:.2f}")
        rows.append(cells)
    head = ["strategy"]
    for devices in (8, 64, 1024):
        head += [f"{devices:,} GPUs: GB", "GB sent", "seconds"]
    return markdown(head, rows)


def efficiency_table(tokens: int, accumulate: int = 1) -> str:
    """Return the share of time in which devices compute, without and with overlap."""
    rows = [
        [own.name, *(_percent(Step(own, devices, tokens, accumulate)) for devices in DEVICES)]
        for own in ARRANGEMENTS
    ]
    return markdown(["strategy", *(f"{devices:,} GPUs" for devices in DEVICES)], rows)


def corpus_table(megabytes: Iterable[int] = (1, 5, 20, 100, 1000)) -> str:
    """Return how many devices a corpus of each size can use."""
    rows = []
    for size in megabytes:
        tokens = size * 1e6 / BYTES_PER_TOKEN
        most = most_devices(tokens)
        steps = tokens / (most * LENGTH)
        largest = 1024 * LENGTH / tokens
        seconds = steps * Step(ARRANGEMENTS[3], most, LENGTH).compute
        rows.append(
            [
                f"{size:,} MB",
                f"{tokens / 1e6:,.1f} M",
                f"{most:,}",
                f"{steps:,.0f}",
                f"{seconds:,.0f} s",
                f"{largest:,.2g}",
            ]
        )
    head = ["text", "tokens", "most GPUs", "steps per epoch", "computation per epoch"]
    return markdown([*head, "epochs per step on 1,024 GPUs"], rows)


def most_devices(tokens: float) -> int:
    """Return the largest power of two of devices that leaves ``STEPS_PER_EPOCH`` steps per epoch.

    >>> most_devices(1.2e6)
    8
    """
    fitting = tokens / (STEPS_PER_EPOCH * LENGTH)
    return int(2 ** max(0, int(fitting).bit_length() - 1))


def tables() -> dict[str, str]:
    """Return the tables by their markers in the page."""
    one = Step(ARRANGEMENTS[3], 8, LENGTH)
    facts = [
        ["parameters", f"{sizes().parameters / 1e9:.2f} billion"],
        ["outside of the blocks", f"{sizes().around / 1e9:.2f} billion"],
        ["operations per token", f"{flops_per_token() / 1e9:.1f} GFLOP"],
        *[
            [
                f"computation for {tokens:,} tokens",
                f"{Step(one.arrangement, 8, tokens).compute:.2f} s",
            ]
            for tokens in TOKENS
        ],
    ]
    return {
        "facts": markdown(["Llama-3.1-8B, sequences of 4,096", "per GPU"], facts),
        "traffic": traffic_table(),
        "small": efficiency_table(TOKENS[0]),
        "large": efficiency_table(TOKENS[1]),
        "accumulated": efficiency_table(TOKENS[0], 4),
        "corpus": corpus_table(),
    }


def draw(path: Path) -> None:
    """Draw communication relative to computation over the number of devices."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "scaling"}):
        figure, panels = plt.subplots(
            1, len(TOKENS), figsize=(10, 4.2), sharey=True, layout="constrained"
        )
        for tokens, panel in zip(TOKENS, panels, strict=True):
            _curves(panel, tokens)
        panels[0].set_ylabel("communication time / computation time")
        panels[0].legend(frameon=False, fontsize=8)
        figure.supxlabel(
            "H100 GPUs; above the dashed line, communication does not fully overlap. "
            "Arithmetic at Llama-3.1-8B's shape, 40 % MFU; no GPU has run it.",
            fontsize=8,
            color="0.4",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _curves(panel: Any, tokens: int) -> None:
    devices = [2**power for power in range(3, 11)]
    for index, own in enumerate(ARRANGEMENTS):
        steps = [Step(own, number, tokens) for number in devices]
        if all(step.state_gb > GPU.memory_gb for step in steps):
            continue
        values = [step.communication / step.compute for step in steps]
        color = SERIES[index % len(SERIES)]
        panel.plot(devices, values, marker="o", markersize=3, label=own.name, color=color)
    panel.set_xscale("log", base=2)
    panel.set_xticks(devices, [f"{number:,}" for number in devices])
    panel.set_ylim(bottom=0)
    panel.axhline(OVERLAP, color="0.3", linestyle="--", linewidth=1)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(f"{tokens:,} tokens per GPU and step", loc="left", fontsize=10)


def _percent(step: Step) -> str:
    if step.state_gb > GPU.memory_gb:
        return "too large"
    least = step.compute / (step.compute + step.communication)
    return f"{100 * least:.0f}–{100 * step.efficiency:.0f} %"


def scaling(write: bool = False) -> None:
    """Print the tables.

    Args:
        write: Whether to write ``docs/scaling.md`` and draw the figure.
    """
    for name, table in tables().items():
        print(f"{name}\n{table}\n")
    if write:
        page = harness.ROOT / PAGE
        page.write_text(filled(page.read_text(), tables()))
        draw(harness.ROOT / FIGURE)


if __name__ == "__main__":
    harness.command_line(scaling)
