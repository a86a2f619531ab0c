"""A plan for a reader: a table, and in words what to take."""

from collections.abc import Sequence

from rich.table import Table

from lit_entrodrop.commands.plan.options import MARGIN, Option, cheapest
from lit_entrodrop.model.hardware import GB


def table(options: Sequence[Option], tokens: float | None, price: float | None) -> Table:
    """Lay options out for the terminal.

    Args:
        options: a row each.
        tokens: of the whole run, if known.
        price: of a device and hour, if known.
    """
    hardware = options[0].hardware
    title = f"Memory of a {hardware.name} in GB ({hardware.memory_gb:g}, {MARGIN:.0%} left free)"
    result = Table(title=f"{title} and speed, estimated")
    for name in ("devices", "strategy"):
        result.add_column(name, no_wrap=True)
    numbers = ["batch", "recompute", "weights", "grads", "optim", "buffers", "acts", "head"]
    numbers += ["sum", "host", "fits", "tokens/s each", "tokens/s"]
    numbers += [] if tokens is None else ["days"]
    numbers += [] if tokens is None or price is None else ["cost"]
    for name in numbers:
        result.add_column(name, justify="right")
    for option in options:
        result.add_row(*_cells(option, tokens, price), style=None if option.fits else "dim")
    return result


def shown(options: Sequence[Option]) -> list[Option]:
    """Return all options on one number of devices, or of several numbers the best of each."""
    sizes = sorted({option.world_size for option in options})
    if len(sizes) == 1:
        return list(options)
    return [_best([each for each in options if each.world_size == size]) for size in sizes]


def verdict(options: Sequence[Option]) -> str:
    """Say which option to take, and why.

    Args:
        options: all that were looked at.

    Returns:
        Some sentences.
    """
    best = cheapest(list(options))
    assert best is not None, "one fits"
    words = [
        f"Take {best.name} on {_devices(best)}: micro-batches of {best.batch_size}, "
        f"{best.accumulate} to a step, {'with' if best.activation_checkpointing else 'without'} "
        f"activation checkpointing; {best.device_gb:.1f} of {best.hardware.memory_gb:g} GB.",
        "No way that fits takes over 5 % fewer device-hours; of those as cheap, it needs the "
        "fewest devices and then the simplest strategy.",
    ]
    simpler = [each for each in options if each.world_size == best.world_size and not each.fits]
    words += [f"There, {each.name} {_obstacle(each)}." for each in simpler[:2]]
    fewer = [each for each in options if each.world_size < best.world_size]
    if fewer and not any(each.fits for each in fewer):
        words.append("No strategy fits on fewer devices of those looked at.")
    fastest = min((o for o in options if o.fits), key=lambda each: each.speed.step_seconds)
    if fastest.world_size > best.world_size:
        times = best.speed.step_seconds / fastest.speed.step_seconds
        words.append(f"The fastest is {fastest.name} on {_devices(fastest)}: {times:.1f} times.")
    return " ".join(words)


def nothing_fits(options: Sequence[Option]) -> str:
    """Say by how much nothing fits, and what to change."""
    least = min(options, key=_excess)
    large = max(("activations", least.activations), ("model", least.states.device), key=_second)
    change = (
        "lower data.block_size, or data.batch_size if it is above 1"
        if large[0] == "activations"
        else "take more devices, model.lm.lora or a smaller model"
    )
    return (
        f"hardware: expected a model that fits, but the closest, {least.name} on "
        f"{_devices(least)}, {_obstacle(least)}: {change}, or hardware with more memory"
    )


def _second(pair: tuple[str, int]) -> int:
    return pair[1]


def _best(options: list[Option]) -> Option:
    return cheapest(options) or min(options, key=_excess)


def _excess(option: Option) -> float:
    hardware = option.hardware
    return max(option.device_gb / hardware.memory_gb, option.host_gb / hardware.host_memory_gb)


def _obstacle(option: Option) -> str:
    hardware = option.hardware
    free = 1 - MARGIN
    if option.device_gb > free * hardware.memory_gb:
        return f"needs {option.device_gb:.1f} of {free * hardware.memory_gb:.1f} GB"
    return f"needs {option.host_gb:.0f} of {free * hardware.host_memory_gb:.0f} GB of host memory"


def _devices(option: Option) -> str:
    devices = f"{option.world_size} {option.hardware.name}"
    return devices if option.num_nodes == 1 else f"{devices} ({option.num_nodes} machines)"


def _cells(option: Option, tokens: float | None, price: float | None) -> list[str]:
    held = option.states
    model = (held.parameters, held.gradients, held.optimizer, held.gathered)
    numbers = (*model, option.activations - option.head, option.head)
    cells = [
        str(option.world_size),
        option.name,
        f"{option.batch_size} x {option.accumulate}",
        "yes" if option.activation_checkpointing else "no",
        *(f"{number / GB:.1f}" for number in numbers),
        f"{option.device_gb:.1f}",
        f"{option.host_gb:.0f}" if held.host else "–",
        "yes" if option.fits else "no",
        f"{option.speed.tokens_per_device:,.0f}",
        f"{option.speed.tokens_per_second:,.0f}",
    ]
    if tokens is not None:
        cells.append(f"{option.speed.days(tokens):.2g}")
        if price is not None:
            cells.append(f"{option.speed.cost(tokens, price):,.0f}")
    return cells
