"""Display of regularizers in a terminal, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lit_entrodrop.commands.regularizers.combinations import Refusal
from lit_entrodrop.commands.regularizers.description import Description


def cost_of(described: Description) -> str:
    """Return the cost of a step; a step of plain training costs one pass."""
    passes = described.gradient_passes
    frozen, copies = described.frozen_passes, described.model_copies
    parts = [f"{passes} pass{'es' if passes > 1 else ''}"]
    if frozen:
        parts.append(f"{frozen} without gradient")
    if copies:
        parts.append(f"{copies} cop{'ies' if copies > 1 else 'y'} of the model")
    return " + ".join(parts) + (", logits twice" if described.logits_twice else "")


def strength_of(described: Description) -> str:
    """Return the strength, from the start to the end of training if it changes."""
    assert described.strength is not None
    start, end = described.strength
    return f"{start:.2g}" if start == end else f"{start:.2g} to {end:.2g}"


def show_explanation(
    console: Console, described: Description, refused: Sequence[Refusal], others: int
) -> None:
    """Print all details of a regularizer, and which of ``others`` cannot run together with it."""
    console.print(Text.assemble((described.name, "bold"), f"  {plain(described.summary)}"))
    for part in _parts(described, refused, others):
        console.print()
        console.print(part)
    console.print()
    # Without wrapping, so that it can be pasted.
    console.print(Text(described.block.rstrip()), soft_wrap=True)


def show_refusals(console: Console, refused: Sequence[Refusal], count: int) -> None:
    """Print how many pairs of ``count`` regularizers run together, and why the others do not."""
    pairs = count * (count + 1) // 2
    console.print(
        f"{pairs - len(refused)} of {pairs} pairs of {count} regularizers run together, "
        "all at their defaults"
    )
    for each in refused:
        console.print(Text(f"{each.first} + {each.second}", style="bold"))
        console.print(Padding(Text(each.reason), (0, 0, 0, 2)))


def to_json(described: Description) -> dict[str, Any]:
    """Return a description for other programs, its YAML block included."""
    values = {name: value for name, value in vars(described).items() if name != "kind"}
    values["settings"] = [
        {**asdict(each), "default": each.default if each.is_plain else repr(each.default)}
        for each in described.settings
    ]
    return {**values, "block": described.block}


def plain(text: str) -> str:
    """Return a text without the markup of literals.

    >>> plain("the ``zero`` vector")
    'the zero vector'
    """
    return text.replace("``", "")


def in_short(default: Any) -> str:
    """Return a default on one line, as in a config; a class is shown as a call.

    >>> in_short({"class_path": "regularizers.Sigmoid", "init_args": {"max": 0.5}})
    'Sigmoid(max=0.5)'
    """
    if isinstance(default, dict) and "class_path" in default:
        arguments = default.get("init_args", {}).items()
        name = default["class_path"].rpartition(".")[2]
        return f"{name}({', '.join(f'{key}={value}' for key, value in arguments)})"
    return "null" if default is None else str(default)


def _parts(
    described: Description, refused: Sequence[Refusal], others: int
) -> Iterator[RenderableType]:
    if described.introduction:
        yield Text(plain(described.introduction))
    if described.formula:
        yield Padding(Text(described.formula, style="cyan"), (0, 0, 0, 4))
    if described.prose:
        yield Text(plain(described.prose))
    yield _facts(described, refused, others)
    if described.settings:
        yield _settings(described)


def _facts(described: Description, refused: Sequence[Refusal], others: int) -> Table:
    facts = {
        "source": described.source,
        "package": f"{described.package} {described.version}",
        "acts on": ", ".join(described.acts_on),
        "needs": ", ".join(described.needs) or "nothing",
        "costs": cost_of(described),
        "strength": strength_of(described) if described.strength else "",
        "excludes": "\n".join(
            # Many reasons start with the name.
            f"{each.second}: {each.reason.removeprefix(f'{each.second}: ')}"
            for each in refused
        )
        or f"none of the {others} others",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="bold"), Text(plain(value)))
    return table


def _settings(described: Description) -> Table:
    table = Table("setting", "default", "meaning", expand=True)
    for each in described.settings:
        table.add_row(Text(each.name), Text(in_short(each.default)), Text(plain(each.help)))
    return table
