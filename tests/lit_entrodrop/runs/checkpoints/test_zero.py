"""Checkpoints that DeepSpeed wrote are read without it, and no code that they may hold is run."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from lit_entrodrop.commands.verify_resume.differences import Comparison
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.runs.checkpoints.integrity import verify_checkpoint
from lit_entrodrop.runs.checkpoints.lazy_weights import shapes
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.runs.checkpoints.zero import is_zero_folder, read_zero_folder
from tests.helpers.tiny import LLAMA
from tests.helpers.zero import write_zero
from tests.lit_entrodrop.runs.checkpoints.test_reading import Payload


def write(folder: Path, stage: int, lora: LoRAConfig | None = None) -> Path:
    # Norms of 17 numbers cannot be shared out evenly.
    odd = {"hidden_size": 17, "head_dim": 8, "num_attention_heads": 1, "intermediate_size": 33}
    architecture = {**LLAMA, **odd}
    lm = LMConfig(pretrained=None, tokenizer="none", architecture=architecture, lora=lora)
    return write_zero(folder, lm, stage, epoch=3)


@pytest.fixture(scope="module")
def zero2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zero") / "2", 2)


@pytest.fixture(scope="module")
def zero3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zero") / "3", 3)


@pytest.fixture
def copied(zero3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(zero3, tmp_path / "last.ckpt"))


@pytest.fixture(scope="module")
def adapters3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zero") / "3", 3, LoRAConfig(rank=3))


def check_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert is_zero_folder(folder)
    checkpoint = read_zero_folder(folder)
    assert checkpoint["epoch"] == 3
    expected = torch.load(folder / "expected.pt")
    assert len(expected) > 20
    assert shapes(checkpoint["state_dict"]) == shapes(expected)
    actual = dict(checkpoint["state_dict"])
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_zero2(zero2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_read(zero2, monkeypatch)


def test_zero3(zero3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_read(zero3, monkeypatch)


def test_frozen_weights_of_zero3(adapters3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_read(adapters3, monkeypatch)


def test_frozen_weights_of_zero1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_read(write(tmp_path / "last.ckpt", 1, LoRAConfig(rank=3)), monkeypatch)


def test_all_that_the_ranks_hold_is_read(zero3: Path, copied: Path) -> None:
    file = file_of(copied, "optim")
    state = torch.load(file, weights_only=False)
    [moments, *_] = state["optimizer_state_dict"]["optimizer_state_dict"]["state"].values()
    moments["exp_avg"][2] += 1
    torch.save(state, file)
    same, changed = Comparison(), Comparison()
    same.compare(read_all(zero3), read_all(zero3))
    changed.compare(read_all(zero3), read_all(copied))
    assert not same.differences
    [difference] = changed.differences
    assert difference.name.startswith(file.name)
    assert difference.name.endswith("exp_avg[2]")


def file_of(folder: Path, part: str, rank: int = 1) -> Path:
    return folder / "checkpoint" / f"zero_pp_rank_{rank}_mp_rank_00_{part}_states.pt"


@pytest.mark.parametrize("part", ["model", "optim"])
def test_code_is_not_executed(copied: Path, part: str) -> None:
    trace = copied.parent / "trace"
    torch.save({"optimizer_state_dict": Payload(trace)}, file_of(copied, part))
    with pytest.raises(ValueError, match=rf"{part}_states\.pt, which contains builtins\.getattr"):
        read_zero_folder(copied)
    assert not trace.exists()
    # The payload does work where code is allowed to run.
    torch.load(file_of(copied, part), weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("part", ["model", "optim"])
def test_file_cut_short_is_named(copied: Path, part: str) -> None:
    file = file_of(copied, part)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{file.name}, which is damaged") as caught:
        read_zero_folder(copied)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("part", ["model", "optim"])
@pytest.mark.parametrize("rank", [0, 1])
def test_missing_rank_is_named(copied: Path, part: str, rank: int) -> None:
    file = file_of(copied, part, rank)
    file.unlink()
    with pytest.raises(ValueError, match=rf"found none of rank {rank} \({file.name}\)"):
        read_zero_folder(copied)


def test_missing_ranks_are_told(copied: Path) -> None:
    for file in (copied / "checkpoint").glob("*optim*"):
        file.unlink()
    with pytest.raises(ValueError, match="found none of rank 0"):
        read_zero_folder(copied)
    shutil.rmtree(copied / "checkpoint")
    (copied / "checkpoint").mkdir()
    with pytest.raises(ValueError, match=r"has no \.pt file"):
        read_zero_folder(copied)


def test_file_that_a_run_on_more_ranks_has_left_is_passed_over(copied: Path) -> None:
    shutil.copy(file_of(copied, "optim", 1), file_of(copied, "optim", 2))
    expected = torch.load(copied / "expected.pt")
    torch.testing.assert_close(dict(read_zero_folder(copied)["state_dict"]), expected)


def test_two_checkpoints_in_one_folder_are_refused(copied: Path, adapters3: Path) -> None:
    bf16 = adapters3 / "checkpoint" / f"bf16_{file_of(copied, 'optim').name}"
    shutil.copy(bf16, copied / "checkpoint")
    with pytest.raises(ValueError, match=r"got two, with .*optim_states\.pt and bf16_zero"):
        read_zero_folder(copied)


def test_files_of_other_checkpoints_are_refused(copied: Path, zero2: Path, adapters3: Path) -> None:
    shutil.copy(file_of(zero2, "optim"), file_of(copied, "optim"))
    with pytest.raises(ValueError, match=r"do not fit together \(KeyError\('fp32_flat_groups'\)\)"):
        read_zero_folder(copied)
    bf16 = file_of(adapters3, "optim")
    shutil.copy(bf16.with_name(f"bf16_{bf16.name}"), file_of(copied, "optim"))
    with pytest.raises(ValueError, match=r"expected \d+ weights in a vector .* got \d+"):
        read_zero_folder(copied)


def test_pointer_to_elsewhere_is_refused(copied: Path) -> None:
    (copied / "latest").write_text("../elsewhere")
    with pytest.raises(ValueError, match=r"points to '\.\./elsewhere' instead of 'checkpoint'"):
        read_zero_folder(copied)


def test_files_of_no_rank_are_looked_at_too(copied: Path) -> None:
    torch.save(Payload(copied / "trace"), copied / "checkpoint" / "expert_0_optim_states.pt")
    with pytest.raises(ValueError, match=r"expert_0_optim_states\.pt, which contains"):
        read_zero_folder(copied)


@pytest.mark.parametrize("part", ["optim", "model"])
def test_flipped_bit_is_named(copied: Path, part: str) -> None:
    verify_checkpoint(copied)
    file = file_of(copied, part)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file.name} is damaged: its record .+ differs"):
        verify_checkpoint(copied)
