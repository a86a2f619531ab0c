"""Table of candidate setups, and the recommended one with its reasons."""

from collections.abc import Sequence

from rich.table import Table

from lit_entrodrop.commands.plan.candidates import MARGIN, Candidate, best_of, cheapest, usage
from lit_entrodrop.model.hardware import GB

PARTS = ("weights", "grads", "optim", "buffers", "acts", "head")
MEMORY_COLUMNS = ("batch", "recompute", *PARTS, "sum")


def table(candidates: Sequence[Candidate], tokens: float | None, price: float | None) -> Table:
    """Return a table of candidates; tokens of the run and a price per device-hour add columns."""
    hardware = candidates[0].hardware
    result = Table(
        title=f"Estimated memory per {hardware.name} in GB (of {hardware.memory_gb:g}, "
        f"{MARGIN:.0%} stay free) and speed"
    )
    for name in ("devices", "strategy"):
        result.add_column(name, no_wrap=True)
    numbers = [*MEMORY_COLUMNS, "host", "fits", "MFU", "tokens/s/device", "tokens/s"]
    numbers += [] if tokens is None else ["days"]
    numbers += [] if tokens is None or price is None else ["cost"]
    for name in numbers:
        result.add_column(name, justify="right")
    for candidate in candidates:
        style = None if candidate.fits else "dim"
        result.add_row(*_cells(candidate, tokens, price), style=style)
    return result


def shown(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return all candidates if they have one number of devices, else the best of each number."""
    sizes = sorted({candidate.world_size for candidate in candidates})
    if len(sizes) == 1:
        return list(candidates)
    return [best_of([each for each in candidates if each.world_size == size]) for size in sizes]


def recommendation(candidates: Sequence[Candidate]) -> str:
    """Return sentences that explain the best candidate; at least one candidate must fit."""
    best = cheapest(candidates)
    assert best is not None, "one fits"
    sentences = [
        f"Recommended: {best.name} on {_devices(best)}, with micro-batches of {best.batch_size}, "
        f"{best.accumulate} per step, {'with' if best.activation_checkpointing else 'without'} "
        f"activation checkpointing; needs {best.device_gb:.1f} of "
        f"{best.hardware.memory_gb:g} GB per device.",
        "No other setup that fits needs over 5 % fewer device-hours. Among those of similar cost, "
        "this one has the fewest devices, and then the simplest strategy.",
    ]
    rejected = [each for each in candidates if each.world_size == best.world_size and not each.fits]
    sentences += [f"{each.name} {obstacle(each)}." for each in rejected[:2]]
    fewer = [each for each in candidates if each.world_size < best.world_size]
    if fewer and not any(each.fits for each in fewer):
        sentences.append("No strategy fits on any smaller number of devices considered.")
    fastest = min((o for o in candidates if o.fits), key=lambda each: each.step_seconds)
    if fastest.world_size > best.world_size:
        times = best.step_seconds / fastest.step_seconds
        sentences.append(
            f"The fastest is {fastest.name} on {_devices(fastest)}, {times:.1f} times as fast."
        )
    return " ".join(sentences)


def nothing_fits(candidates: Sequence[Candidate]) -> str:
    """Return an error message with the missing memory and the settings to change."""
    least = min(candidates, key=usage)
    change = (
        "lower data.block_size, or data.batch_size if it is above 1"
        if least.activations >= least.memory.device
        else "use more devices, model.lm.lora, model.lm.quantize or a smaller model"
    )
    return (
        f"hardware: expected a model that fits, but the closest setup, {least.name} on "
        f"{_devices(least)}, {obstacle(least)}: {change}, or choose hardware with more memory"
    )


def obstacle(candidate: Candidate) -> str:
    """Return the memory that a candidate needs and what there is."""
    hardware = candidate.hardware
    free = 1 - MARGIN
    if candidate.device_gb > free * hardware.memory_gb:
        return f"needs {candidate.device_gb:.1f} of {free * hardware.memory_gb:.1f} GB"
    available = free * hardware.host_memory_gb
    return f"needs {candidate.host_gb:.0f} of {available:.0f} GB of host memory"


def _devices(candidate: Candidate) -> str:
    devices = f"{candidate.world_size} {candidate.hardware.name}"
    return devices if candidate.num_nodes == 1 else f"{devices} ({candidate.num_nodes} machines)"


def memory_cells(candidate: Candidate) -> list[str]:
    """Return the cells of `MEMORY_COLUMNS`."""
    memory = candidate.memory
    model = (memory.parameters, memory.gradients, memory.optimizer, memory.buffers)
    numbers = (*model, candidate.activations - candidate.head, candidate.head)
    return [
        f"{candidate.batch_size} x {candidate.accumulate}",
        "yes" if candidate.activation_checkpointing else "no",
        *(f"{number / GB:.1f}" for number in numbers),
        f"{candidate.device_gb:.1f}",
    ]


def _cells(candidate: Candidate, tokens: float | None, price: float | None) -> list[str]:
    cells = [
        str(candidate.world_size),
        candidate.name,
        *memory_cells(candidate),
        f"{candidate.host_gb:.0f}" if candidate.memory.host else "–",
        "yes" if candidate.fits else "no",
        f"{candidate.mfu:.0%}",
        f"{candidate.tokens_per_second / candidate.world_size:,.0f}",
        f"{candidate.tokens_per_second:,.0f}",
    ]
    if tokens is not None:
        cells.append(f"{candidate.days(tokens):.2g}")
        if price is not None:
            cells.append(f"{candidate.cost(tokens, price):,.0f}")
    return cells
