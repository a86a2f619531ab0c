"""Scaling of each strategy at the shape of Llama-3.1-8B, by arithmetic; nothing is run.

``python -m benchmarks.scaling --write true`` writes the tables into ``docs/scaling.md`` and draws a
figure. Bytes are those of :mod:`lit_entrodrop.commands.plan.communication`, bandwidths those of the
manufacturers. In addition to the bandwidth, a ring needs one hop per device, of ``HOP`` seconds.
All communication except the reductions of tensor parallelism, which the next layer waits for,
overlaps with a part of the computation, as in :mod:`lit_entrodrop.commands.plan.speed`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import harness
from benchmarks.gpu import ARCHITECTURES, training_flops_per_token
from benchmarks.live_fit import TOKENIZER
from lit_entrodrop.commands.plan.communication import Traffic, step_bytes
from lit_entrodrop.commands.plan.model_memory import NumberBytes, model_memory
from lit_entrodrop.commands.plan.speed import OVERLAP, compute_seconds
from lit_entrodrop.commands.report.plotting import SERIES
from lit_entrodrop.model.building import build_hf_config, build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.hardware import GB, find_hardware
from lit_entrodrop.model.sizes import Sizes, sizes_of

PAGE = "docs/scaling.md"
FIGURE = "docs/images/scaling.svg"
LLAMA = LMConfig(
    pretrained=None,
    architecture=ARCHITECTURES["llama3.1-8b"],
    tokenizer=TOKENIZER,
    activation_checkpointing=True,
)
LENGTH = 4096
MFU = 0.4
HOP = 5e-6
DEVICES = (8, 16, 64, 256, 1024)
TOKENS = (4096, 16384)
ZERO2_BUCKET = 500_000_000  # numbers, DeepSpeed's default
BYTES_PER_TOKEN = 4.2
STEPS_PER_EPOCH = 20
GPU = find_hardware("h100")


@dataclass(frozen=True)
class Arrangement:
    """A strategy and its arrangement of devices.

    Args:
        name: Name in tables and figure.
        strategy: Name of a file in ``configs/strategy``.
        tensor: Size of a tensor-parallel group.
        sharded_over: Number of devices per copy of the model; None for all.
    """

    name: str
    strategy: str
    tensor: int = 1
    sharded_over: int | None = None

    def replicas(self, devices: int) -> int:
        """Return the number of copies of the model."""
        return devices // self.sharded_over if self.sharded_over else 1


ARRANGEMENTS = (
    Arrangement("DDP", "ddp"),
    Arrangement("ZeRO-2", "deepspeed_zero2"),
    Arrangement("ZeRO-3", "deepspeed_zero3"),
    Arrangement("FSDP2", "fsdp2"),
    Arrangement("HSDP of 8", "fsdp2", sharded_over=8),
    Arrangement("FSDP2 + TP 2", "fsdp2_tp", tensor=2),
    Arrangement("FSDP2 + TP 8", "fsdp2_tp", tensor=8),
)


@dataclass(frozen=True)
class Step:
    """An optimizer step on some devices.

    Args:
        arrangement: Arrangement of the devices.
        devices: Total number of devices.
        tokens: Tokens of a micro-batch per device; a tensor-parallel group processes the tokens of
            all its devices.
        accumulate: Micro-batches per step.
    """

    arrangement: Arrangement
    devices: int
    tokens: int
    accumulate: int = 1

    @property
    def state_gb(self) -> float:
        """Memory of a device for the states of the model, GB."""
        own = self.arrangement
        over = self.devices // own.replicas(self.devices)
        return model_memory(own.strategy, sizes(), over, NumberBytes(), own.tensor).device / GB

    @property
    def sent(self) -> Traffic:
        """Bytes that a device sends per step."""
        return self._sent(self.tokens)

    @property
    def compute(self) -> float:
        """Computation time of a step, seconds."""
        return compute_seconds(flops_per_token(), self.tokens * self.accumulate, MFU, GPU)

    @property
    def communication(self) -> float:
        """Communication time of a step without overlap, seconds."""
        return self._hidable + self._awaited

    @property
    def efficiency(self) -> float:
        """Share of a step in which devices compute."""
        exposed = self._awaited + max(0.0, self._hidable - OVERLAP * self.compute)
        return self.compute / (self.compute + exposed)

    def _sent(self, tokens: int) -> Traffic:
        own = self.arrangement
        return step_bytes(
            own.strategy,
            sizes(),
            self.devices,
            GPU.devices_per_node,
            tokens * own.tensor,
            own.tensor,
            own.replicas(self.devices),
            self.accumulate,
            recomputed=True,
        )

    @property
    def _hidable(self) -> float:
        return _seconds(self._sent(0)) + HOP * self._hops * self.accumulate

    @property
    def _awaited(self) -> float:
        """Time for the reductions of activations in a tensor-parallel group, seconds."""
        hops = 8 * sizes().layers * 2 * (self.arrangement.tensor - 1) * self.accumulate
        return _seconds(self.sent) - _seconds(self._sent(0)) + HOP * hops

    @property
    def _hops(self) -> int:
        own, everyone = self.arrangement, self.devices - 1
        buckets = -(-sizes().parameters // ZERO2_BUCKET)
        if own.strategy in ("ddp", "deepspeed_zero2"):
            return 3 * buckets * everyone
        copies = own.replicas(self.devices)
        units = sizes().layers + 1
        shards = self.devices // (copies * own.tensor)
        return 3 * units * (shards - 1) + 2 * units * (copies - 1)


def _seconds(sent: Traffic) -> float:
    intra = sent.intra_node / GPU.intra_node_bandwidth
    return intra + sent.inter_node / GPU.inter_node_bandwidth


@cache
def sizes() -> Sizes:
    """Return the sizes of the model."""
    return sizes_of(build_on_meta(LLAMA))


@cache
def flops_per_token() -> float:
    """Return the training operations per token."""
    return training_flops_per_token(build_hf_config(LLAMA), LENGTH)


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


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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


def filled(page: str) -> str:
    """Return a page with new tables between their marker comments."""
    for name, table in tables().items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = page.split(start)
        page = f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"
    return page


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
        page.write_text(filled(page.read_text()))
        draw(harness.ROOT / FIGURE)


if __name__ == "__main__":
    harness.command_line(scaling)
