import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from lit_entrodrop.cli.fit_config import _LenientParser, _ParserOnly, resolved_config
from lit_entrodrop.cli.lit_cli import PROVIDED, run_lightning
from lit_entrodrop.cli.main import main
from lit_entrodrop.data.corpora.registry import CORPORA
from lit_entrodrop.entropy.store_file import open_rows
from lit_entrodrop.runs.evaluations import Evaluation
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.processes import python, run_forked
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

ENTRODROP = "--model.regularizers+=regularizers.EntroDrop"


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that exits with success, and return its output."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    return capsys.readouterr().out


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


@pytest.fixture(scope="module")
def kept(tiny_module: Tiny) -> Path:
    """Folder of a run that every test copies."""
    tiny_module.run("fit")
    return tiny_module.folder


@pytest.fixture
def run(tiny: Tiny, kept: Path) -> Path:
    """Copy of a run of the tiny config, in the folder of the test."""
    shutil.copytree(kept, tiny.folder, symlinks=True, dirs_exist_ok=True)
    return tiny.folder / "run"


def test_fit_writes_config_metrics_and_checkpoints(run: Path) -> None:
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    kept = {f"checkpoints/{name}.ckpt" for name in ("best", "last", "step=10", "step=20")}
    kept |= {"run.json", *(f"evaluations/step={step}.npz" for step in (0, 10, 20))}
    [events] = {name for name in files if name.startswith("tensorboard/")}
    assert files == {"config.yaml", "metrics.csv", "throughput.csv", events, *kept}
    metrics = read_metrics(run)
    validations = metrics.dropna(subset=["val/loss"])
    assert validations.index.tolist() == [0, 10, 20]
    assert validations["val/loss"].is_monotonic_decreasing
    assert {"val/loss_low_entropy", "val/loss_high_entropy", "learning_rate"} <= set(metrics)
    assert metrics.dropna(subset=["train/loss"]).index.tolist() == list(range(2, 22, 2))


def test_last_checkpoint_is_of_the_last_epoch_even_if_another_was_better(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(30, seed=4))
    run = tiny.run("fit", "--trainer.max_epochs=8", "--model.optimizer.init_args.lr=0.1")
    losses = read_metrics(run)["val/loss"].dropna()
    assert losses.idxmin() < losses.index[-1]
    steps = {
        name: torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert steps == {"best": losses.idxmin(), "last": losses.index[-1]}


def test_saved_config_reproduces_the_run(tiny: Tiny, run: Path) -> None:
    again = tiny.folder / "again"
    main(["fit", "--config", str(run / "config.yaml"), "--trainer.default_root_dir", str(again)])
    torch.testing.assert_close(
        weights(again / "checkpoints/last.ckpt"),
        weights(run / "checkpoints/last.ckpt"),
        atol=0,
        rtol=0,
    )


def test_saved_config_serves_every_command(tiny: Tiny, run: Path) -> None:
    tiny.run("fit", "--ckpt_path=last", "--trainer.max_steps=11")
    saved = run / "config.yaml"
    # Otherwise other commands would load the checkpoint from which the run was resumed.
    assert "ckpt_path" not in yaml.safe_load(saved.read_text())
    printed = tiny.folder / "printed.yaml"
    printed.write_text(f"{saved.read_text()}ckpt_path: null\n")
    for command in PROVIDED:
        for config in (saved, printed):
            parser = _ParserOnly(only=command, parser_class=_LenientParser).parser
            settings = parser.parse_args([command, f"--config={config}"])[command]
            assert settings.trainer.max_steps == 11
    assert resolved_config([f"--config={saved}"])["trainer"]["max_steps"] == 11


def test_seed_changes_the_run(tiny: Tiny, run: Path) -> None:
    other = tiny.run("fit", "--seed_everything=1", root="other")
    first, second = (read_metrics(folder)["train/loss"].dropna() for folder in (run, other))
    assert not np.allclose(first, second)


def test_printed_config_round_trips(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [ENTRODROP, "--model.regularizers.quantile=0.3", "--model.optimizer.init_args.lr=0.5"]
    printed = outcome(["fit", *tiny.config(), *asked, "--print_config"], capsys)
    (tiny.folder / "printed.yaml").write_text(printed)
    repeated = outcome(
        ["fit", "--config", str(tiny.folder / "printed.yaml"), "--print_config"], capsys
    )
    assert repeated == printed
    config = yaml.safe_load(printed)
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.5
    [regularizer] = config["model"]["regularizers"]
    assert regularizer["class_path"] == "regularizers.EntroDrop"
    assert regularizer["init_args"]["quantile"] == 0.3
    assert regularizer["init_args"]["curriculum"]["init_args"]["max"] == 0.4


def test_flags_override_composed_configs(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for name, block in {"one": "EntroDrop", "two": "EmbeddingDropout"}.items():
        text = f"model:\n  regularizers+:\n    - class_path: regularizers.{block}\n"
        (tiny.folder / f"{name}.yaml").write_text(text)
    files = [f"--config={tiny.folder}/{name}.yaml" for name in ("one", "two")]
    flags = ["--trainer.max_epochs=7", "--model.regularizers+=regularizers.RandomTokenDropout"]
    config = yaml.safe_load(
        outcome(["fit", *tiny.config(), *files, *flags, "--print_config"], capsys)
    )
    assert [item["class_path"] for item in config["model"]["regularizers"]] == [
        "regularizers.EntroDrop",
        "regularizers.EmbeddingDropout",
        "regularizers.RandomTokenDropout",
    ]
    assert config["trainer"]["max_epochs"] == 7


def test_resume_by_last_equals_an_uninterrupted_run(tiny: Tiny) -> None:
    settings = [ENTRODROP, "--model.regularizers.curriculum=0.5", "--trainer.max_epochs=3"]
    whole = tiny.run("fit", *settings, root="whole")
    # The same schedule, stopped in the second epoch by a callback that fails.
    plug_in = tiny.folder / "killer.py"
    plug_in.write_text(
        "import lightning as L\n"
        "class Killer(L.Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n"
        "        if trainer.global_step == 15:\n"
        "            raise KeyError('killed')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tiny.folder))
        with pytest.raises(KeyError, match="killed"):
            tiny.run("fit", *settings, "--trainer.callbacks+=killer.Killer", root="killed")
    resumed = tiny.run("fit", *settings, "--ckpt_path=last", root="killed")
    torch.testing.assert_close(
        weights(resumed / "checkpoints/last.ckpt"),
        weights(whole / "checkpoints/last.ckpt"),
        atol=0,
        rtol=0,
    )
    for name in ("val/loss", "train/loss"):
        series = [read_metrics(folder)[name].dropna() for folder in (resumed, whole)]
        pd.testing.assert_series_equal(*series)


def test_given_settings_override_those_of_the_checkpoint(tiny: Tiny, run: Path) -> None:
    resumed = tiny.run("fit", "--ckpt_path=last", "--trainer.max_epochs=3", "--data.batch_size=8")
    assert resumed == run
    assert read_metrics(run).index[-1] == 20 + 5
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"] == 8


def test_given_optimizer_settings_override_on_resume(tiny: Tiny, run: Path) -> None:
    changed = ["--model.optimizer.init_args.lr=0.002", "--model.optimizer.init_args.weight_decay=1"]
    tiny.run("fit", "--ckpt_path=last", "--trainer.max_epochs=3", *changed)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    [matrices, others] = state["optimizer_states"][0]["param_groups"]
    assert (matrices["weight_decay"], others["weight_decay"]) == (1, 0)
    assert matrices["initial_lr"] == others["initial_lr"] == 0.002
    rates = read_metrics(run)["learning_rate"].dropna()
    assert 0 < rates[rates.index > 20].max() < 0.002


def test_changed_entropy_source_is_computed_again_on_resume(tiny: Tiny) -> None:
    tiny.run("fit", ENTRODROP)
    source = "--model.regularizers.entropy_source=reference"
    run = tiny.run("fit", ENTRODROP, source, "--ckpt_path=last", "--trainer.max_epochs=3")
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["entropies"]
    assert kept["origin"] == "reference None"
    assert not kept["train"]["values"][:, 1].isnan().all()


def test_mixed_precision_trains_with_clipping(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.precision=bf16-mixed", "--trainer.max_epochs=4")
    losses = read_metrics(run)["val/loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0] - 0.5


def test_last_checkpoint_does_not_wait_for_validation(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=5")
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == read_metrics(run).index[-1]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_of_a_checkpoint(
    tiny: Tiny, run: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    best = run / "checkpoints" / "best.ckpt"
    with pytest.warns(
        UserWarning, match="may have been trained on blocks that are evaluated now: set data.valid"
    ):
        tiny.run(command, f"--ckpt_path={best}", "--data.test=0.2", root="elsewhere")
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    split = {"validate": "validation", "test": "test"}[command]
    values = {row[2].split()[0]: float(row[3]) for row in rows if row[1].strip() == split}
    assert np.exp(values["loss"]) == pytest.approx(values["perplexity"], rel=1e-2)
    if command == "validate":
        assert values["loss"] == pytest.approx(read_metrics(run)["val/loss"].min(), rel=1e-3)
    [written] = (tiny.folder / "elsewhere").rglob("*.npz")
    assert written.name == f"{split}-step=20.npz"
    assert Evaluation.load(written).loss[0] == pytest.approx(values["loss"], rel=1e-3)


def test_evaluation_with_the_settings_of_the_run_does_not_warn(tiny: Tiny, run: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="data: this model was trained on other blocks")
        tiny.run("validate", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", root="elsewhere")


def test_predict_writes_a_table(tiny: Tiny, run: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    out = tiny.run("predict", f"--ckpt_path={best}", "--data.predict_split=validation", root="p")
    table = pq.read_table(out / "predictions-0.parquet").to_pandas()
    counted = table[table["counted"]]
    assert (table["position"][table["nll"].isna()] < 16).all()
    assert table["nll"].isna().tolist() == table["entropy"].isna().tolist()
    assert counted["nll"].mean() == pytest.approx(read_metrics(run)["val/loss"].min(), rel=1e-4)


@pytest.mark.parametrize("output", ["scores.bin", "folder.safetensors"])
def test_scores_need_the_name_of_a_safetensors_file(tiny: Tiny, output: str) -> None:
    (tiny.folder / "folder.safetensors").mkdir()
    with pytest.raises(SystemExit) as ended:
        tiny.run("score", f"--output={tiny.folder / output}")
    assert "expected the name of a .safetensors file" in str(ended.value.code)


def test_interval_of_zero_logs_once_an_epoch(tiny: Tiny) -> None:
    logged = read_metrics(tiny.run("fit", "--trainer.log_every_n_steps=0"))
    assert len(logged["train/loss"].dropna()) == 2


def test_fit_uses_scores_from_a_file(tiny: Tiny) -> None:
    file = tiny.folder / "scores" / "entropies.safetensors"
    apart = f"--data.cache_dir={tiny.folder / 'apart'}"
    tiny.run("score", "--split=train", f"--output={file}", apart, root="scored")
    assert not (tiny.folder / "scored").exists()
    reference = [ENTRODROP, "--model.regularizers.entropy_source=reference"]
    by_file = tiny.run("fit", *reference, f"--model.reference={file}", root="by_file")
    # The model is the same, so the entropies that it computes itself must be equal.
    own = tiny.run("fit", *reference, root="own")
    rates = [read_metrics(folder)["entro_drop/drop_rate"].dropna() for folder in (by_file, own)]
    assert rates[0].sum() > 0
    pd.testing.assert_series_equal(*rates)


def test_fit_finds_scores_in_the_cache(tiny: Tiny) -> None:
    tiny.run("score", "--split=train")
    cached = {path: path.stat().st_mtime_ns for path in (tiny.folder / "cache/entropy").iterdir()}
    assert len(cached) == 1
    tiny.run("fit", ENTRODROP, "--model.regularizers.entropy_source=reference")
    [path] = cached
    assert path.stat().st_mtime_ns == cached[path]
    # The others belong to the validation split and to the sample of training blocks.
    assert len(list((tiny.folder / "cache/entropy").iterdir())) == 3


def test_scores_in_the_cache_are_not_computed_again(tiny: Tiny) -> None:
    tiny.run("score", "--split=train")
    [path] = (tiny.folder / "cache/entropy").iterdir()
    scored, _ = open_rows(path, "r+")
    # Values that no scoring would write.
    for block in range(len(scored.values)):
        scored.write(block, np.full(16, block, np.float16))
    file = tiny.folder / "again.safetensors"
    tiny.run("score", "--split=train", f"--output={file}")
    assert file.read_bytes() == path.read_bytes()
    tiny.run("score", "--split=train", "--trainer.precision=bf16-mixed")
    assert len(list((tiny.folder / "cache/entropy").iterdir())) == 2


def test_export_by_command(tiny: Tiny, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, out = run / "checkpoints" / "best.ckpt", tiny.folder / "model"
    main(["export", "--ckpt_path", str(best), "--output", str(out), "--dtype", "bfloat16"])
    assert f"use: {out}/README.md" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16


def test_exported_model_can_be_trained(tiny: Tiny, run: Path) -> None:
    out = tiny.folder / "model"
    main(["export", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--output={out}"])
    again = tiny.run(
        "fit", "--model.lm.architecture=null", f"--model.lm.pretrained={out}", root="again"
    )
    start, best = read_metrics(again)["val/loss"].iloc[0], read_metrics(run)["val/loss"].min()
    assert start == pytest.approx(best, rel=1e-5)


def test_external_regularizer_trains(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.folder / "elsewhere"
    folder.mkdir()
    (folder / "my_regularizer.py").write_text(
        '"""A regularizer outside the repository."""\n'
        "from regularizers import Regularizer\n"
        "class Shrink(Regularizer):\n"
        '    """Make embeddings smaller."""\n'
        "    def __init__(self, factor: float) -> None:\n"
        "        super().__init__()\n"
        "        self.factor = factor\n"
        "    def on_embeddings(self, embeddings, step):\n"
        '        step.log("norm", embeddings.norm())\n'
        "        return embeddings * self.factor\n"
    )
    config = folder / "mine.yaml"
    block = {"class_path": "my_regularizer.Shrink", "init_args": {"factor": 0.5}}
    config.write_text(json.dumps({"model": {"regularizers+": [block]}}))
    monkeypatch.syspath_prepend(str(folder))
    metrics = read_metrics(tiny.run("fit", f"--config={config}"))
    assert (metrics["shrink/norm"].dropna() > 0).all()
    plain = read_metrics(tiny.run("fit", root="plain"))
    assert not np.allclose(metrics["train/loss"].dropna(), plain["train/loss"].dropna())


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        text = outcome(["fit", "--help"], capsys)
    own = [
        line
        for line in text.splitlines()
        if line.strip().startswith(("--model.", "--data.")) and " CONFIG" not in line
    ]
    assert len(own) > 25
    lines = text.splitlines()
    for line in own:
        following = (
            lines[lines.index(line) + 1].strip() if lines.index(line) + 1 < len(lines) else ""
        )
        explained = len(line.split()) > 3 or (following and not following.startswith("--"))
        assert explained, line
    assert "nats" in text or "tokens" in text.lower()


def test_registry_corpora_are_named_in_the_error(
    tiny: Tiny, capsys: pytest.CaptureFixture[Any]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tiny.run("fit", "--data.corpus=registry:nope")
    assert all(name in str(ended.value.code) for name in CORPORA)


def test_traceback_is_shown_on_demand(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_ENTRODROP_TRACEBACK", "1")
    with pytest.raises(ValueError, match="block_size"):
        tiny.run("fit", "--data.block_size=1")


def test_two_ranks_share_a_run(tiny: Tiny) -> None:
    folder = tiny.folder / "ddp"
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    place = ["--trainer.default_root_dir", str(folder)]
    result = python(
        "-m", "lit_entrodrop", "fit", *tiny.config(), *ranks, *place, cwd=CONFIGS.parent
    )
    assert result.returncode == 0, result.stderr
    assert_quiet(result.stdout + result.stderr)
    two = read_metrics(folder)
    one = read_metrics(tiny.run("fit", "--data.batch_size", 8, root="one"))
    for name in ("val/loss", "train/loss"):
        expected = one[name].dropna()
        assert two[name].dropna().to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-4)


def test_progress_bar_can_be_disabled(tiny: Tiny) -> None:
    path = tiny.folder / "shown.yaml"
    path.write_text("{trainer: {enable_progress_bar: null}}")
    settings = [*tiny.config(), "--config", str(path), "--monitors.progress_bar", "null"]
    place = ["--trainer.default_root_dir", str(tiny.folder / "bare"), "--trainer.max_steps", "1"]
    cli = run_lightning(["fit", *settings, *place])
    assert cli.trainer.progress_bar_callback is None


def test_single_epoch_with_entropies_of_the_last_one_warns(tiny: Tiny) -> None:
    with pytest.warns(UserWarning, match="no token will be dropped; set entropy_source"):
        tiny.run("fit", ENTRODROP, "--trainer.max_epochs=1")


def test_ready_configs_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--data.corpus=x", "--config", "configs/base.yaml", "--config=regularizers/focal.yaml"]
    config = resolved_config([*words, "--config", "{trainer: {max_epochs: 3}}"])
    assert (config["trainer"]["gradient_clip_val"], config["trainer"]["max_epochs"]) == (1.0, 3)
    [regularizer] = config["model"]["regularizers"]
    assert regularizer["class_path"] == "regularizers.Focal"
    # A file in the working folder comes first.
    (tmp_path / "base.yaml").write_text("trainer: {max_epochs: 7}")
    assert resolved_config([*words[:1], "--config=base.yaml"])["trainer"]["max_epochs"] == 7


def test_resolved_config_equals_print_config(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*tiny.config(), ENTRODROP, "--model.optimizer.init_args.lr=1e-5", "--ckpt_path=last"]
    printed = outcome(["fit", *words, "--print_config"], capsys)
    assert resolved_config(words) == yaml.safe_load(printed)
    assert capsys.readouterr().out == ""
    # Calls share a parser, but no state.
    assert resolved_config(tiny.config())["model"]["regularizers"] == []
    assert resolved_config([])["data"].get("corpus") is None


def assert_quiet(output: str) -> None:
    for line in ("Seed set to", "GPU available: False", "TPU available: False", "Tip:"):
        assert line not in output
    for warning in ("dirpath", "no logger configured", "callbacks used to create"):
        assert warning not in output


def test_lines_that_need_no_action_are_hidden(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.max_steps=1")
    place = f"--trainer.default_root_dir={run}"
    arguments = ["validate", *tiny.config(), place, "--ckpt_path=last"]
    result = run_forked(main, arguments, cwd=CONFIGS.parent)
    assert result.returncode == 0, result.stdout
    assert "validation" in result.stdout
    assert_quiet(result.stdout)
