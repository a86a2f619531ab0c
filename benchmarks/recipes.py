"""Planned memory of each recipe, each way to train it and each memory of one GPU.

``python -m benchmarks.recipes --write true`` plans what ``benchmarks/results/recipes.json`` lacks,
which takes minutes, and writes the tables into ``docs/recipes.md``.
"""

import json
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoConfig

from benchmarks import harness
from benchmarks.hub_models import HUB_MODELS, PARAMETERS
from benchmarks.pages import filled, markdown
from lit_entrodrop.commands.plan.candidates import best_of
from lit_entrodrop.commands.plan.planner import Planner
from lit_entrodrop.commands.plan.ways import WAYS, requested_devices, way_workload

PAGE = "docs/recipes.md"
RESULTS = "benchmarks/results/recipes.json"
MEMORIES = (24, 80)  # GB
NAMES = [way.name for way in WAYS]
Row = dict[str, Any]


def plan(model: str, names: Sequence[str] = NAMES) -> list[Row]:
    """Return the planned setups of a recipe, for ways of these names and each memory."""
    rows = []
    with TemporaryDirectory() as folder:
        AutoConfig.for_model(**HUB_MODELS[model]).save_pretrained(folder)
        arguments = ["--config=configs/base.yaml", f"--config=configs/model/{model}.yaml"]
        arguments += [f"--model.lm.pretrained={folder}", "--trainer.precision=bf16-mixed"]
        planners: dict[bool, Planner] = {}
        for way in WAYS:
            if way.name not in names:
                continue
            workload = way_workload(way, arguments, devices=1)
            planner = Planner(workload, requested_devices("24GB")[1])
            # Neither the optimizer nor quantization changes the activations.
            planner = planners.setdefault(workload.lm.lora is None, planner)
            planner.workload = workload
            for memory in MEMORIES:
                planner.hardware = requested_devices(f"{memory}GB")[1]
                best = best_of(planner.candidates(1))
                rows.append(
                    {
                        "model": model,
                        "way": way.name,
                        "memory": memory,
                        "planned": round(best.device_gb, 1),
                        "model_gb": round(best.memory.device / 1e9, 2),
                        "fits": best.fits,
                        "batch": best.batch_size,
                        "accumulate": best.accumulate,
                        "recompute": best.activation_checkpointing,
                    }
                )
    return rows


def read() -> list[Row]:
    """Return the planned setups of all recipes."""
    path = harness.ROOT / RESULTS
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def table(rows: list[Row], memory: int) -> str:
    """Return the table of one memory."""
    lines = []
    for model, parameters in PARAMETERS.items():
        own = {row["way"]: row for row in rows if row["model"] == model and row["memory"] == memory}
        first = next((name for name in NAMES if own[name]["fits"]), None)
        cells = [_cell(own[name], name == first) for name in NAMES]
        lines.append([f"`{model}`", f"{parameters / 1e9:.2f} B", *cells])
    return markdown(["model", "parameters", *NAMES], lines)


def tables(rows: list[Row]) -> dict[str, str]:
    """Return the tables by their markers in the page."""
    return {f"{memory}GB": table(rows, memory) for memory in MEMORIES}


def _cell(row: Row, is_first: bool) -> str:
    if not row["fits"]:
        return f"no ({row['planned']:.0f})"
    text = f"{row['planned']:.1f}"
    marked = f"**{text}**" if is_first else text
    return f"{marked} ↻" if row["recompute"] else marked


def recipes(write: bool = False) -> None:
    """Plan the recipes that have no result yet, and print the tables.

    Args:
        write: Whether to write ``docs/recipes.md``.
    """
    rows = read()
    for model in HUB_MODELS:
        if not any(row["model"] == model for row in rows):
            rows += plan(model)
            lines = ",\n".join(json.dumps(row) for row in rows)
            (harness.ROOT / RESULTS).write_text(f"[\n{lines}\n]\n")
    for name, content in tables(rows).items():
        print(f"{name}\n{content}\n")
    if write:
        page = harness.ROOT / PAGE
        page.write_text(filled(page.read_text(), tables(rows)))


if __name__ == "__main__":
    harness.command_line(recipes)
