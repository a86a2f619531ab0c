from pathlib import Path
from typing import Any

import pytest
import torch

from lit_entrodrop.commands.doctor import resource_checks
from lit_entrodrop.commands.doctor.check import CheckResult, run_check
from lit_entrodrop.commands.doctor.resource_checks import (
    checkpoint_room,
    device_memory,
    entropy_bytes,
    entropy_cache,
    free_bytes,
    loss_bytes,
    room_to_load,
    run_folder,
    strategy_of,
)
from lit_entrodrop.entropy.holdout.context import with_context
from lit_entrodrop.entropy.holdout.nearest import nearest_chunks
from lit_entrodrop.entropy.store import EntropyStore
from regularizers import HoldoutLossSelection
from tests.helpers.doctor import make_run
from tests.helpers.tiny import LLAMA, Tiny

# Terabytes of weights, which are never allocated.
HUGE = {
    **LLAMA,
    "hidden_size": 2**17,
    "intermediate_size": 2**19,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_hidden_layers": 2,
}


def only(check: Any, tiny: Tiny, **settings: Any) -> CheckResult:
    return run_check(check, make_run(tiny, **settings))


def test_what_fits_passes(tiny_module: Tiny) -> None:
    run = make_run(tiny_module)
    checks = (run_folder, device_memory, entropy_cache, checkpoint_room, room_to_load)
    found = [run_check(check, run) for check in checks]
    assert [check.status for check in found] == ["pass"] * len(checks), found
    assert "no GPU is used" in found[1].found or torch.cuda.is_available()
    assert not (tiny_module.folder / "run").exists()


def test_model_beyond_memory_and_disk_fails(tiny_module: Tiny) -> None:
    run = make_run(tiny_module, lm={"architecture": HUGE})
    memory, disk = (run_check(check, run) for check in (device_memory, checkpoint_room))
    assert memory.status == "fail"
    assert "lit-entrodrop plan" in memory.remedy
    assert disk.status == "fail"
    assert "checkpoints.keep_last" in disk.remedy
    room = run_check(room_to_load, run)
    assert room.status == "warn"
    assert "not checked" in room.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_gpu_that_is_not_here_is_reported(tiny_module: Tiny) -> None:
    check = only(device_memory, tiny_module, trainer={"accelerator": "gpu", "devices": 2})
    assert check.status == "warn"
    assert "on each of 2 devices with strategy ddp" in check.found
    assert "this machine has no GPU" in check.found


def test_strategy_that_fit_refuses_fails(tiny_module: Tiny) -> None:
    check = only(device_memory, tiny_module, trainer={"strategy": "deepspeed_stage_2"})
    assert check.status == "fail"
    assert "trainer.strategy: expected auto" in check.found


def test_folder_of_another_run_fails(tiny: Tiny) -> None:
    checkpoints = tiny.folder / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").write_text("")
    run = make_run(tiny)
    check = run_check(run_folder, run)
    assert check.status == "fail"
    assert "has a run" in check.found
    run.config["ckpt_path"] = "last"
    assert run_check(run_folder, run).status == "pass"


def test_entropies_of_other_text_fail(tiny: Tiny) -> None:
    path = tiny.folder / "entropies.safetensors"
    EntropyStore(2, 16, "others").save(path)
    check = only(entropy_cache, tiny, model__reference=str(path))
    assert check.status == "fail"
    assert "expected those of the blocks" in check.found


def test_full_disk_fails(tiny_module: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tiny_module)
    monkeypatch.setattr(resource_checks, "free_bytes", lambda _: entropy_bytes(run))
    check = run_check(entropy_cache, run)
    assert check.status == "fail"
    assert "data.cache_dir" in check.remedy


def test_entropies_are_counted_in_half_precision(tiny_module: Tiny) -> None:
    run = make_run(tiny_module)
    blocks = [run.blocks(split) for split in ("train", "validation", "clean_train")]
    store_bytes = sum(
        EntropyStore(len(each), 16, "x").values.nbytes for each in blocks if each is not None
    )
    assert entropy_bytes(run) == store_bytes


def test_losses_of_which_gains_are_made_are_counted(tiny_module: Tiny) -> None:
    run = make_run(tiny_module, HoldoutLossSelection(), data={"holdout": 0.2})
    train, holdout = run.data.blocks("train"), run.data.blocks("holdout")
    joined, _ = with_context(train, holdout, nearest_chunks(train, holdout, 3), 64)
    stored = sum(EntropyStore(len(b), b.block_size, "x").values.nbytes for b in (train, joined))
    # Padding is not counted.
    assert loss_bytes(run) == pytest.approx(stored, rel=0.4)
    assert loss_bytes(make_run(tiny_module)) == 0
    assert "GB for entropies and losses" in run_check(entropy_cache, run).found


def test_free_room_of_a_folder_to_come_is_that_of_its_disk(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(free_bytes(tmp_path), rel=0.1)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("auto", ("ddp", 1)),
        ("deepspeed_zero3_offload", ("deepspeed_zero3_offload", 1)),
        (
            {
                "class_path": "lit_entrodrop.training.strategies.FSDP2Strategy",
                "init_args": {"tensor_parallel_size": 2},
            },
            ("fsdp2_tp", 2),
        ),
        ({"class_path": "lit_entrodrop.training.strategies.FSDP2Strategy"}, ("fsdp2", 1)),
    ],
)
def test_strategies_are_known_by_name_and_class(setting: Any, expected: tuple[str, int]) -> None:
    assert strategy_of(setting) == expected
