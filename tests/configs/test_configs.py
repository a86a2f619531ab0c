"""Every config under ``configs/`` is parsed and built through the command line."""

import re
import shlex
from contextlib import redirect_stdout
from functools import cache, reduce
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.hub_models import HUB_MODELS
from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.lit_cli import LitCLI
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.plan.candidates import TrainingSetup
from lit_entrodrop.commands.plan.config_conversion import workload_of
from lit_entrodrop.commands.plan.planner import Planner
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.corpora.registry import CORPORA
from lit_entrodrop.data.mixing import sources_of
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.hardware import find_hardware
from lit_entrodrop.model.loading import locate
from lit_entrodrop.runtime.nested import merged
from lit_entrodrop.training.module import LitCausalLM
from regularizers import Regularizer, Sigmoid
from tests.helpers.tiny import CONFIGS

# Those of `compare`, and spaces of `tune`, are read where these are tested.
FILES = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name != "comparisons" and path.name != "space.yaml"
)
BASE = CONFIGS / "base.yaml"
# Quickstart arms and experiments on models of the hub say which files they go with.
COMPANIONS = {
    "experiments/quickstart/entrodrop.yaml": ["experiments/quickstart/common.yaml"],
    "experiments/quickstart/random_token_dropout.yaml": ["experiments/quickstart/common.yaml"],
    **{
        f"experiments/{folder}/{name}.yaml": [companion]
        for folder, companion in (
            ("base_without", "experiments/tiny_base.yaml"),
            ("unseen", "experiments/quickstart/common.yaml"),
        )
        for name in ("factbook", "sotu")
    },
    "experiments/smollm2_hpo.yaml": ["model/smollm2_135m.yaml", "regularizers/entrodrop.yaml"],
    **{
        f"experiments/llama3.1_8b_{machines}.yaml": [
            "model/llama3.1_8b.yaml",
            "regularizers/entrodrop.yaml",
        ]
        for machines in ("1x80gb", "8x80gb", "64gpu")
    },
}
HUB_NAMES = {
    "smollm2_360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2_1.7b": "HuggingFaceTB/SmolLM2-1.7B",
    "gemma3_270m": "google/gemma-3-270m",
    "gemma3_1b": "google/gemma-3-1b-pt",
    "gemma3_4b": "google/gemma-3-4b-pt",
    "qwen3_0.6b": "Qwen/Qwen3-0.6B-Base",
    "qwen3_1.7b": "Qwen/Qwen3-1.7B-Base",
    "qwen3_4b": "Qwen/Qwen3-4B-Base",
    "qwen3_8b": "Qwen/Qwen3-8B-Base",
    "llama3.2_1b": "meta-llama/Llama-3.2-1B",
    "llama3.2_3b": "meta-llama/Llama-3.2-3B",
    "llama3.1_8b": "meta-llama/Llama-3.1-8B",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def compose(path: Path) -> list[Path]:
    companions = [CONFIGS / name for name in COMPANIONS.get(name_of(path), [])]
    return [BASE, *companions, *([] if path == BASE else [path])]


def arguments(path: Path) -> list[str]:
    """Compose a config with the base, a model by default, and data where it names none."""
    content = yaml.safe_load(path.read_text())
    composed: list[dict[str, Any]] = [yaml.safe_load(file.read_text()) for file in compose(path)]
    files = [f"--config={file}" for file in compose(path)]
    named = any("corpus" in config.get("data", {}) for config in composed)
    assert content, f"{path} is empty"
    return [*files, *([] if named else ["--data.corpus=registry:hpo"])]


class Built(LitCLI):
    """Build the classes of a command line and run nothing."""

    def before_instantiate_classes(self) -> None:
        self.save_config_callback = None
        self.parsed = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))["fit"]
        # Elsewhere than on the machine that a config is for, its device may be missing.
        for name, value in {"accelerator": "cpu", "devices": 1, "logger": False}.items():
            self.config["fit"]["trainer"][name] = value

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@cache
def build(path: Path) -> Built:
    return Built(only="fit", args=["fit", *arguments(path)])


def test_configs_are_found() -> None:
    assert len(FILES) >= 18
    assert BASE in FILES


def printed_config(*flags: str) -> str:
    printed = StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        main(["fit", *flags, "--print_config"])
    assert not ended.value.code
    return printed.getvalue()


def holds(final: Any, own: Any) -> bool:
    """Tell whether a composed config holds an entry of one of its files, defaults beside it."""
    if isinstance(own, dict):
        return all(name in final and holds(final[name], value) for name, value in own.items())
    if isinstance(own, list):
        return len(own) == len(final) and all(map(holds, final, own))
    return bool(final == own)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_config_is_parsed(path: Path) -> None:
    final = build(path).parsed
    own = yaml.safe_load(path.read_text())
    for section in ("trainer", "data"):
        for name, value in own.get(section, {}).items():
            assert holds(final[section][name.removesuffix("+")], value), (section, name)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_config_is_built(path: Path) -> None:
    cli = build(path)
    assert isinstance(cli.model, LitCausalLM)
    assert isinstance(cli.datamodule, TextDataModule)
    assert cli.trainer.gradient_clip_val == 1.0
    assert isinstance(cli.model.lm, LMConfig)
    block = yaml.safe_load(path.read_text()).get("model", {}).get("regularizers+", [])
    names = [item["class_path"].rpartition(".")[2] for item in block]
    built = [type(item).__name__ for item in cli.model.regularizers.ordered]
    assert built[len(built) - len(names) :] == names
    assert all(isinstance(item, Regularizer) for item in cli.model.regularizers.ordered)
    for corpus in sources_of(cli.datamodule.hparams["corpus"]):
        if corpus.startswith("registry:"):
            assert corpus.removeprefix("registry:") in CORPORA
    assert cli.datamodule.hparams["tokenizer"] == cli.model.lm.tokenizer_source


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "regularizers"], ids=name_of
)
def test_regularizer_config_adds_one_regularizer(path: Path) -> None:
    # What a method needs of model and data comes with it.
    assert {"model"} <= yaml.safe_load(path.read_text()).keys() <= {"model", "data"}
    [regularizer] = build(path).model.regularizers.ordered
    assert regularizer.curriculum.at_most(1.0) > 0


def test_controls_are_matched_to_entrodrop() -> None:
    def matched(name: str) -> tuple[str, list[float]]:
        [regularizer] = build(CONFIGS / f"{name}.yaml").model.regularizers.ordered
        rates = [regularizer.quantile * regularizer.curriculum(p / 10) for p in range(11)]
        return regularizer.replacement, rates

    for folder, controls in {
        "regularizers": ["random_token_dropout", "high_entropy_dropout"],
        "experiments/quickstart": ["random_token_dropout"],
    }.items():
        for control in controls:
            assert matched(f"{folder}/{control}") == matched(f"{folder}/entrodrop")


def test_default_entrodrop_is_the_documented_one() -> None:
    [entrodrop] = build(CONFIGS / "regularizers/entrodrop.yaml").model.regularizers.ordered
    assert (entrodrop.quantile, entrodrop.target, entrodrop.replacement) == (
        0.5,
        "input",
        "random_token",
    )
    assert entrodrop.entropy_source == "last_epoch"
    assert isinstance(entrodrop.curriculum, Sigmoid)
    assert entrodrop.curriculum(0.5) == 0.2


@pytest.mark.parametrize("name", HUB_NAMES)
def test_hub_model_is_named(name: str) -> None:
    lm = build(CONFIGS / "model" / f"{name}.yaml").model.lm
    assert lm.pretrained == HUB_NAMES[name]
    assert locate(lm.pretrained).name == HUB_NAMES[name]
    assert lm.dtype == "float32"


# Devices and strategies on which a recipe fits without recomputation.
RECIPES = {
    "tiny_base": (1, "ddp", "l4"),
    "smollm2_135m": (1, "ddp", "l4"),
    "qwen3_0.6b": (1, "ddp", "h100"),
    "llama3.1_8b": (8, "fsdp2", "h100"),
}


def test_recipe_for_scarce_text_is_the_arm_that_was_measured() -> None:
    arms = yaml.safe_load((CONFIGS / "comparisons/recipe.yaml").read_text())["arms"]
    [noise, *others] = arms["all_but_average"]
    [replacement] = noise["model"]["regularizers+"]
    replacement["class_path"] = f"regularizers.{replacement['class_path']}"
    measured = reduce(merged, others, noise)
    assert yaml.safe_load((CONFIGS / "recipes/scarce.yaml").read_text()) == measured


@pytest.mark.parametrize("name", RECIPES)
def test_the_commands_of_the_readme_get_a_recipe_that_fits(name: str) -> None:
    world_size, strategy, device = RECIPES[name]
    readme = (CONFIGS.parent / "README.md").read_text()
    [command] = re.findall(r"lit-entrodrop (fit .*?) --trainer.default_root_dir", readme, re.DOTALL)
    given = shlex.split(command.replace("\\\n", " ").replace("qwen3_0.6b", name))
    config = resolved_config(given[1:])

    recipe = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    assert recipe["data"].keys() == {"block_size", "batch_size"}
    assert recipe["model"].keys() == {"lm", "optimizer", "lr_schedule"}
    assert recipe["model"]["optimizer"]["init_args"].keys() == {"lr", "weight_decay"}
    # The recipe for scarce text comes later.
    scarce = yaml.safe_load((CONFIGS / "recipes/scarce.yaml").read_text())
    recipe["model"]["optimizer"]["init_args"] |= scarce["model"]["optimizer"]["init_args"]
    assert all(holds(config[section], recipe[section]) for section in recipe)
    assert config["data"]["repack"] == scarce["data"]["repack"] == "epoch"
    [noise] = config["model"]["regularizers"]
    assert noise["class_path"] == "regularizers.TokenReplacement"

    if name != "tiny_base":
        config["model"]["lm"] |= {"pretrained": None, "architecture": HUB_MODELS[name]}
    workload = workload_of(config)
    recompute = workload.lm.activation_checkpointing
    size = workload.batch_size
    accumulate = workload.global_batch_size // (size * world_size)
    setup = TrainingSetup(strategy, world_size, 1, size, accumulate, recompute)
    estimate = Planner(workload, find_hardware(device))._estimate(setup)
    assert estimate.fits
    assert not recompute
    table = (CONFIGS.parent / "docs/recipes.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|") and f"`{name}`" in line]
    assert any(f"{estimate.tokens_per_step:,}" in row for row in rows)
    first_lines = (CONFIGS / "model" / f"{name}.yaml").read_text().partition("\ntrainer")[0]
    assert f"{estimate.tokens_per_step:,} tokens in a step" in first_lines


def test_every_model_config_is_of_a_known_kind() -> None:
    names = {path.stem for path in (CONFIGS / "model").iterdir()}
    assert names == {
        *HUB_NAMES,
        "average",
        "dropout",
        "lora",
        "qlora",
        "smollm2_135m",
        "tiny_base",
    }
    assert build(CONFIGS / "model/lora.yaml").model.lm.lora.rank == 16


def test_base_sets_what_every_run_shares() -> None:
    cli = build(BASE)
    assert cli.trainer.num_sanity_val_steps == float("inf")
    assert cli.config["fit"]["seed_everything"] == 0
    assert cli.model.seed == cli.datamodule.hparams["seed"] == 0
    assert cli.model.lm.pretrained == "package:lit_entrodrop/model/tiny_base"


@pytest.mark.parametrize(
    "name", ["EntroDrop", "RandomTokenDropout", "EmbeddingDropout", "LossReweighting"]
)
def test_defaults_survive_in_the_kept_config(name: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    named = [{"class_path": f"regularizers.{name}"}]
    own.write_text(yaml.safe_dump({"model": {"regularizers": named}, "data": {"corpus": "x"}}))
    kept = tmp_path / "kept.yaml"
    kept.write_text(printed_config("--config", str(own)))
    assert printed_config("--config", str(kept)) == kept.read_text()


@pytest.mark.parametrize(("name", "value"), [("weight_decay", 0.1), ("weight_decay_strong", 0.5)])
def test_weight_decay_leaves_the_rest_of_the_optimizer(name: str, value: float) -> None:
    decay = CONFIGS / "optimizer" / f"{name}.yaml"
    quickstart = CONFIGS / "experiments/quickstart/common.yaml"
    for files in ([quickstart, decay], [decay, quickstart]):
        printed = yaml.safe_load(printed_config(*(f"--config={file}" for file in files)))
        settings = printed["model"]["optimizer"]["init_args"]
        assert settings["weight_decay"] == value
        assert settings["lr"] == 0.001
