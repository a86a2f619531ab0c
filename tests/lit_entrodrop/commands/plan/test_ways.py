import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.plan.config_conversion import config_text
from lit_entrodrop.commands.plan.way_advice import advice, fit_command, recommended
from lit_entrodrop.commands.plan.ways import (
    WAYS,
    PlannedWay,
    planned_ways,
    requested_devices,
    rows_per_step,
)
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.config import LMConfig
from tests.helpers.tiny import CONFIGS, Tiny, save_llama

WORKLOAD = Workload(LMConfig(), 4, 8, 2048, "bf16-mixed", 8.0)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = save_llama(tmp_path_factory.mktemp("model"))
    configs = [f"--config={CONFIGS / name}.yaml" for name in ("base", "model/qwen3_0.6b")]
    return [*configs, f"--model.lm.pretrained={model}", "--data.block_size=16"]


@pytest.fixture(scope="module")
def ways(arguments: list[str]) -> list[PlannedWay]:
    found, refusals = planned_ways(arguments, *requested_devices("24GB"))
    assert not refusals
    return found


def test_ways_differ_as_they_say(ways: list[PlannedWay]) -> None:
    assert [each.way for each in ways] == list(WAYS)
    full, eight_bit, lora, qlora = (each.workload for each in ways)
    assert full.optimizer == 8 > eight_bit.optimizer
    assert full.lm == eight_bit.lm
    assert (lora.lm.lora, lora.lm.quantize, lora.lm.dtype) == (qlora.lm.lora, None, qlora.lm.dtype)
    assert lora.lm.lora is not None
    assert qlora.lm.quantize is not None
    assert all(each.workload.global_batch_size == 8 for each in ways)
    assert all(each.setup.strategy == "ddp" for each in ways)


def test_first_way_that_fits_is_recommended(ways: list[PlannedWay]) -> None:
    def on(memory_gb: float) -> list[PlannedWay]:
        hardware = replace(ways[0].setup.hardware, memory_gb=memory_gb)
        return [replace(each, setup=replace(each.setup, hardware=hardware)) for each in ways]

    for each in ways:
        enough = on(each.setup.device_gb / 0.9 + 1e-9)
        fitting = [way.way for way in enough if way.setup.device_gb <= each.setup.device_gb]
        assert recommended(enough).way is fitting[0]
    with pytest.raises(ValueError, match=r"for: expected a model that fits, but .* needs"):
        recommended(on(1e-9))


@pytest.mark.parametrize("index", range(len(WAYS)))
def test_printed_command_trains_as_the_written_config(
    index: int, ways: list[PlannedWay], arguments: list[str], tmp_path: Path
) -> None:
    way = ways[index]
    output = tmp_path / "plan.yaml"
    output.write_text(config_text(way.setup, way.workload, way.way.content))
    commands = [shlex.split(fit_command(way, arguments, each)) for each in (None, str(output))]
    assert all(command[:2] == ["lit-entrodrop", "fit"] for command in commands)
    by_flags, by_file = (resolved_config(command[2:]) for command in commands)
    assert int(by_flags["trainer"].pop("devices")) == by_file["trainer"].pop("devices") == 1
    assert by_flags == by_file
    assert by_file["data"]["corpus"] == "my_corpus.jsonl"
    settings = by_file["model"]["optimizer"]["init_args"]
    assert settings["lr"] == (0.0002 if "LoRA" in way.way.name else 0.00005)
    assert settings["weight_decay"] == 0.1
    assert by_file["model"]["lm"]["dtype"] == ("bfloat16" if "LoRA" in way.way.name else "float32")


def test_printed_command_keeps_quotation_marks(
    ways: list[PlannedWay], arguments: list[str]
) -> None:
    settings = {"model": {"lm": {"config_overrides": {"note": 'said "no"'}}}}
    way = replace(ways[0], way=replace(ways[0].way, settings=settings))
    command = shlex.split(fit_command(way, arguments, None))
    assert resolved_config(command[2:])["model"]["lm"]["config_overrides"]["note"] == 'said "no"'


def test_a_limit_of_tokens_bounds_the_epoch(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--corpus_tokens=1e6", "--data.max_train_tokens=500"]
    main(["plan", *tiny.config(), "--for=2x24GB", *limits])
    assert "An epoch has 15 steps." in " ".join(capsys.readouterr().out.split())


def test_command(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    output = tiny.folder / "plan.yaml"
    main(["plan", *tiny.config(), "--for=2x24GB", "--corpus_tokens=500", f"--output={output}"])
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert "Recommended: full, the first way that fits" in words
    assert "A step has 32 tokens: 2 blocks of 16. An epoch has 15 steps." in words
    assert "QLoRA: lm.quantize: expected a pretrained model" in words
    command = shlex.split(printed.splitlines()[-1])
    assert command[-2:] == ["--config", str(output)]
    planned = resolved_config(command[2:])
    assert planned["trainer"]["devices"] == 2
    assert planned["data"]["batch_size"] * planned["trainer"]["accumulate_grad_batches"] == 1


@pytest.mark.parametrize(
    ("tokens", "devices", "rows"),
    [(None, 4, 8), (1e9, 1, 8), (250e3, 1, 8), (100e3, 1, 3), (100e3, 2, 2), (1e3, 2, 2)],
)
def test_an_epoch_of_a_small_corpus_has_enough_steps(
    tokens: float | None, devices: int, rows: int
) -> None:
    assert rows_per_step(WORKLOAD, devices, tokens) == rows


def test_advice_on_a_corpus_that_is_too_small(ways: list[PlannedWay]) -> None:
    assert "lower data.block_size" in advice(ways[0], 1000)
    assert "lower data.block_size" not in advice(ways[0], 10_000)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--for=24"], "for: expected a memory or a GPU.*, such as 24GB.*, got '24'"),
        (["--for=0GB"], "for: expected a memory or a GPU"),
        (["--for=0x24GB"], "for: expected a memory or a GPU"),
        (["--for=rtx9"], "one of b200, .*rtx3090"),
        (["--for=3x24GB"], "for: expected a number of GPUs that divides the 4 rows of a step"),
        (["--for=24GB", "--hardware=l4"], "for: expected no .* got --hardware: leave one out"),
        (["--for=24GB", "--model.lm.lora.rank=4"], "for: expected the config of full fine-tuning"),
    ],
)
def test_bad_input_ends_with_one_line(tiny: Tiny, flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["plan", *tiny.config(), *flags])


@pytest.mark.parametrize("text", ["0GB", "-1GB", "24", "8x", "1e9GB", "0x24GB", "9" * 5000 + "GB"])
def test_other_texts_name_no_devices(text: str) -> None:
    with pytest.raises(ValueError, match="expected a memory or a GPU"):
        requested_devices(text)
