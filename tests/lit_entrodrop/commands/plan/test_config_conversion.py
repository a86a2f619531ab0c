from dataclasses import replace
from typing import Any

import pytest

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.plan.config_conversion import (
    data_parallel_size,
    planned_precision,
    training_tokens,
    workload_of,
)
from lit_entrodrop.commands.plan.estimates.model_memory import STRATEGIES
from tests.helpers.tiny import CONFIGS, Tiny

SHARED = {"class_path": "x.FSDP2Strategy", "init_args": {"tensor_parallel_size": 2}}


@pytest.mark.parametrize(
    ("devices", "nodes", "strategy", "expected"),
    [
        ("auto", 1, "auto", 1),
        (-1, 2, "ddp", 2),
        (4, 2, "fsdp2", 8),
        ("4", 1, "ddp", 4),
        ("0,3,", 1, "ddp", 2),
        ([0, 1, 2], 1, "ddp", 3),
        (4, 1, SHARED, 2),
    ],
)
def test_devices_are_counted_as_fit_takes_them(
    devices: Any, nodes: int, strategy: Any, expected: int
) -> None:
    trainer = {"devices": devices, "num_nodes": nodes, "strategy": strategy}
    assert data_parallel_size(trainer) == expected


def test_a_workload_is_read_from_a_config(tiny: Tiny) -> None:
    more = ["--trainer.devices=2", "--trainer.accumulate_grad_batches=3", "--trainer.max_steps=5"]
    config = resolved_config([*tiny.config(), *more, "--model.lm.lora.rank=2"])
    workload = workload_of(config)
    assert (workload.batch_size, workload.global_batch_size, workload.block_size) == (4, 24, 16)
    assert workload.lm.lora is not None
    assert workload.lm.lora.rank == 2
    assert workload.optimizer == 8.0
    assert training_tokens(config, workload, None) == 5 * 24 * 16
    assert training_tokens(config, workload, 100.0) == 200.0  # in two epochs
    config["trainer"]["max_steps"] = -1
    assert training_tokens(config, workload, None) is None
    config["data"]["replay"] = {"share": 0.2}
    assert training_tokens(config, workload, 100.0) == 250.0


def test_the_configured_optimizer_is_the_one_that_is_counted(tiny: Tiny) -> None:
    momentum = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.momentum=0.9"]
    flags = ["--model.optimizer.lr=0.1", "--model.lm.dtype=bfloat16"]
    workload = workload_of(resolved_config([*tiny.config(), *momentum, *flags]))
    assert workload.optimizer == 2.0
    assert not workload.refused


def test_muon_is_counted_for_the_blocks_and_planned_without_deepspeed(tiny: Tiny) -> None:
    muon = f"--config={CONFIGS / 'optimizer/muon.yaml'}"
    workload = workload_of(resolved_config([*tiny.config(), muon]))
    # 4 bytes for 2 x 2304 numbers of blocks, 8 for 320 x 16 of the embedding, and few for norms.
    assert workload.optimizer == pytest.approx((4 * 4608 + 8 * 5120) / (4608 + 5120), rel=0.02)
    assert workload.refused == {name for name in STRATEGIES if name.startswith("deepspeed")}


def test_extra_passes_come_from_the_configured_regularizers(tiny: Tiny) -> None:
    named = ["--model.regularizers+=regularizers.ReferenceKL"]
    named += ["--model.regularizers+=regularizers.WaveBound", "--model.regularizers.decay=0.9"]
    named += ["--model.regularizers+=regularizers.MIR", "--model.lm.lora.rank=2"]
    # Without its adapters, the model is the reference.
    assert workload_of(resolved_config([*tiny.config(), *named])).reference is None
    named.append("--model.lm.lora.init=pissa")
    workload = workload_of(resolved_config([*tiny.config(), *named]))
    required = workload.extra_passes.required
    assert (required.reference, required.teacher, required.second_forward) == (True, 0.9, True)
    assert workload.extra_passes.reads_outputs
    assert workload.averaged
    assert workload.optimizer == 8.0 + 4.0  # moments, average
    assert workload.reference == replace(workload.lm, lora=None)
    assert workload.reference_sizes is not None
    assert workload.reference_sizes.trainable == 0
    other = [*named, "--model.reference=package:lit_entrodrop/model/tiny_base"]
    assert (
        workload_of(resolved_config([*tiny.config(), *other])).reference_sizes
        != workload.reference_sizes
    )
    averaged = [*tiny.config(), "--model.average={kind: lawa, window: 2}"]
    workload = workload_of(resolved_config(averaged))
    assert workload.reference_sizes is None
    assert workload.averaged
    assert workload.optimizer == 8.0 + 4.0 + 2 * 4.0  # moments, average, latest weights


def test_wrong_flag_is_reported_as_in_fit(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *tiny.config(), "--data.blok_size=3"])
    assert ended.value.code == 2
    meant = "did you mean data.block_size? (see lit-entrodrop fit --help)"
    line = f"unrecognized arguments: --data.blok_size=3: {meant}"
    assert capsys.readouterr().err == f"lit-entrodrop fit: error: {line}\n"


def test_fp32_is_planned_in_bf16() -> None:
    assert planned_precision("32-true", "float32") == "bf16-mixed"
    assert planned_precision("16-mixed", "float32") == "16-mixed"
    assert planned_precision("32-true", "bfloat16") == "32-true"
