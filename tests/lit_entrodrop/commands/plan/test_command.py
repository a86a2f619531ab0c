from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.plan.config_conversion import config_text, workload_of
from lit_entrodrop.commands.plan.planner import Planner
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.hardware import find_hardware
from tests.helpers.tiny import CONFIGS, LLAMA, Tiny

LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


def test_what_it_writes_is_taken_by_fit_beside_the_users_configs(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tiny.folder / "plans" / "plan.yaml"
    own = [*tiny.config(), "--trainer.accumulate_grad_batches=4", "--data.block_size=32"]
    flags = ["--hardware=H100", "--world_size", "1", "2", "--output", str(output)]
    own += ["--model.groups=[{match: norm, lr: 0.5}]"]
    main(["plan", *own, *flags, "--corpus_tokens=1e9", "--price_per_hour=2"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Recommended: ddp on 1 h100" in printed
    assert "16 rows of 32 tokens per step" in printed
    assert "tokens/s" in printed
    assert "norm, vectors 5 80 0.005 0" in printed
    assert "days" in printed
    assert "cost" in printed

    planned = resolved_config([*own, "--config", str(output)])
    assert planned["trainer"]["strategy"] == "auto"
    assert planned["trainer"]["precision"] == "bf16-mixed"
    assert workload_of(planned).global_batch_size == 16
    small = ["--data.block_size=16", "--trainer.max_epochs=1"]
    assert (tiny.run("fit", "--config", output, *small) / "metrics.csv").exists()


def test_every_kind_of_plan_is_parsed_by_fit(tiny: Tiny) -> None:
    shareable = LMConfig(pretrained=None, architecture={**LLAMA, "num_key_value_heads": 2})
    workload = replace(workload_of(resolved_config(tiny.config())), lm=shareable)
    found = Planner(workload, find_hardware("h100")).candidates(2)
    for name in ("ddp", "fsdp2_tp (2)", "deepspeed_zero3_offload"):
        [candidate] = [each for each in found if each.name == name]
        path = tiny.folder / "plan.yaml"
        path.write_text(config_text(candidate, workload))
        planned = resolved_config([*tiny.config(), "--config", str(path)])
        assert workload_of(planned).global_batch_size == workload.global_batch_size
        assert planned["trainer"]["devices"] == 2
        strategy = planned["trainer"]["strategy"]
        if candidate.tensor_parallel_size > 1:
            assert strategy["init_args"]["tensor_parallel_size"] == 2
        else:
            assert strategy == name


def test_a_ready_model_config_is_planned_without_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layers of Llama 3.1 8B, but two of them."""
    AutoConfig.for_model(**{**LLAMA_8B, "num_hidden_layers": 2}).save_pretrained(tmp_path)
    configs = [f"--config={CONFIGS / name}.yaml" for name in ("base", "model/llama3.1_8b")]
    flags = ["--hardware=rtx4090", "--world_size=2", f"--output={tmp_path / 'plan.yaml'}"]
    main(["plan", *configs, f"--model.lm.pretrained={tmp_path}", *flags])
    printed = " ".join(capsys.readouterr().out.split())
    assert "1.49 B parameters, 1.49 B trainable" in printed
    assert "ddp needs" in printed
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text())["trainer"]["strategy"] != "ddp"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hardware=abacus"], "hardware: expected one of .*h100.*, got 'abacus'"),
        (["--mfu=1.5"], "mfu: expected a share above 0 and up to 1, got 1.5"),
        (["--mfu=nan"], "mfu: expected a share above 0 and up to 1, got nan"),
        (["--price_per_hour=-1"], "price_per_hour: expected a finite number above 0, got -1.0"),
        (["--world_size=12"], "world_size: expected up to 8 devices, or a multiple of 8"),
        (["--world_size=8"], "world_size: expected a number that divides the global batch of 4"),
        (["--output={config}"], "output: expected a new file, but .* exists"),
    ],
)
def test_bad_input_ends_with_one_line(tiny: Tiny, flags: list[str], message: str) -> None:
    config = tiny.config()
    flags = [flag.format(config=config[-1]) for flag in flags]
    with pytest.raises(SystemExit, match=message):
        main(["plan", *config, *flags])
