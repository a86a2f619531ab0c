"""The tables of ``docs/recipes.md``: as the planner computes them, as far as seconds allow."""

import pytest

from benchmarks.harness import ROOT
from benchmarks.hub_models import HUB_MODELS, PARAMETERS
from benchmarks.pages import filled
from benchmarks.recipes import MEMORIES, PAGE, plan, read, tables
from lit_entrodrop.commands.plan.ways import WAYS


def test_page_holds_the_results() -> None:
    page = (ROOT / PAGE).read_text()
    assert filled(page, tables(read())) == page, "run: python -m benchmarks.recipes --write true"


def test_every_recipe_is_planned_in_every_way() -> None:
    planned = [(row["model"], row["way"], row["memory"]) for row in read()]
    assert planned == [
        (model, way.name, memory) for model in HUB_MODELS for way in WAYS for memory in MEMORIES
    ]


def test_memory_of_the_models_follows_from_their_parameters() -> None:
    bytes_per_weight = {"full": 16, "full, 8-bit AdamW": 10, "LoRA": 2, "QLoRA": 0.5}
    for row in read():
        states = PARAMETERS[row["model"]] * bytes_per_weight[row["way"]] / 1e9
        assert states - 0.01 <= row["model_gb"] < row["planned"]
        if row["way"] == "full":
            assert row["model_gb"] == pytest.approx(states, abs=0.01)
        assert row["fits"] == (row["planned"] <= 0.9 * row["memory"])


@pytest.mark.parametrize(("model", "way"), [("smollm2_135m", "full"), ("gemma3_270m", "QLoRA")])
def test_results_are_those_of_the_planner(model: str, way: str) -> None:
    stored = [row for row in read() if row["model"] == model and row["way"] == way]
    assert plan(model, [way]) == stored
