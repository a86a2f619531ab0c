"""Checkpoints are read, whole or in shards, and no code that they may hold is run."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from lit_entrodrop.runs.checkpoints.lazy_weights import shapes
from lit_entrodrop.runs.checkpoints.reading import (
    check_same_model,
    read_all,
    read_checkpoint,
)

OURS: dict[str, Any] = {"lm": {}, "hf_config": {}}


def write_shards(
    folder: Path, weights: dict[str, Tensor], key: str = "state_dict", **metadata: Any
) -> Path:
    dcp.save({key: weights, "optimizer_0": {"lr": 0.1}}, checkpoint_id=folder, no_dist=True)
    torch.save({**OURS, **metadata}, folder / "meta.pt")
    return folder


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_unreadable_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.ckpt"
    with pytest.raises(ValueError, match=r"broken\.ckpt, which does not exist: check the path"):
        read_checkpoint(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.ckpt, which cannot be read .*copy it") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)


class Payload:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "executed")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.ckpt"
    content = {"lm": {}, "hf_config": {}, "state_dict": Payload(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="which cannot be read"):
        read_checkpoint(path)
    assert not trace.exists()
    # The payload does work where code is allowed to run.
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.read_text() == "executed"


WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def test_shards_are_read_as_a_whole(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS, epoch=3)
    checkpoint = read_checkpoint(folder)
    assert checkpoint["epoch"] == 3
    torch.testing.assert_close(dict(checkpoint["state_dict"]), WEIGHTS, atol=0, rtol=0)
    assert shapes(checkpoint["state_dict"]) == shapes(WEIGHTS)


def test_shards_of_fsdp1_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS, key="model")
    with pytest.raises(ValueError, match=r"last\.ckpt, which FSDP1 wrote: .* not supported"):
        read_checkpoint(folder)


def test_shapes_of_shards_are_known_without_reading_them(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS)
    weights = read_checkpoint(folder)["state_dict"]
    for file in folder.glob("*.distcp"):
        file.unlink()
    assert shapes(weights) == shapes(WEIGHTS)


def test_another_model_is_refused() -> None:
    own = shapes(WEIGHTS)
    check_same_model(own, dict(own))
    for other in ({**own, "b": torch.Size([3])}, {"b": own["b"]}, {**own, "c": torch.Size([])}):
        with pytest.raises(ValueError, match="differs in 1 tensors, the first"):
            check_same_model(own, other)


def test_code_in_a_table_of_contents_is_not_executed(tmp_path: Path) -> None:
    folder, trace = write_shards(tmp_path / "last.ckpt", WEIGHTS), tmp_path / "trace"
    (folder / ".metadata").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(
        ValueError, match=r"metadata, which cannot be read: .*it contains pathlib\.Path"
    ):
        read_checkpoint(folder)
    assert not trace.exists()


def test_names_within_known_modules_are_not_followed(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS)
    # The module of the table's types imports others, through which a dotted name could lead.
    reach = b"\x80\x04\x8c\x27torch.distributed.checkpoint.filesystem\x8c\x09os.getpid\x93)R."
    (folder / ".metadata").write_bytes(reach)
    with pytest.raises(ValueError, match=r"filesystem\.os\.getpid"):
        read_checkpoint(folder)
    assert isinstance(pickle.loads(reach), int)


@pytest.mark.parametrize("missing", [".metadata", "meta.pt"])
def test_incomplete_shards_are_refused(tmp_path: Path, missing: str) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS)
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=rf"got .*last\.ckpt/{missing}, which cannot be read"):
        read_checkpoint(folder)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS)
    [shard] = folder.glob("*.distcp")
    shard.unlink()
    with pytest.raises(ValueError, match=rf"found no .*{shard.name}, a shard of the checkpoint"):
        read_checkpoint(folder)


def test_shard_cut_short_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "last.ckpt", WEIGHTS)
    [shard] = folder.glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"got .*{shard.name} of \d+, which is truncated"):
        read_checkpoint(folder)


def test_folder_of_zero_without_our_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match=r"whose folder checkpoint has no \.pt file"):
        read_checkpoint(tmp_path)


def test_all_of_shards_is_read(tmp_path: Path) -> None:
    state = {"optimizer_0": {"lr": 0.1, "betas": (0.9, 0.95), "exp_avg": torch.ones(2)}}
    dcp.save({"state_dict": WEIGHTS, **state}, checkpoint_id=tmp_path / "a", no_dist=True)
    torch.save({**OURS, "epoch": 3}, tmp_path / "a" / "meta.pt")
    everything = read_all(tmp_path / "a")
    assert everything["epoch"] == 3
    assert everything["values"] == {"optimizer_0.lr": 0.1, "optimizer_0.betas": (0.9, 0.95)}
    expected = {f"state_dict.{name}": weight for name, weight in WEIGHTS.items()}
    expected["optimizer_0.exp_avg"] = torch.ones(2)
    torch.testing.assert_close(dict(everything["state_dict"]), expected, atol=0, rtol=0)


def test_code_in_a_value_of_shards_is_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    state = {"state_dict": WEIGHTS, "optimizer_0": {"lr": Payload(trace)}}
    dcp.save(state, checkpoint_id=tmp_path / "a", no_dist=True)
    torch.save(OURS, tmp_path / "a" / "meta.pt")
    trace.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"got .*a, whose optimizer_0\.lr cannot be read"):
        read_all(tmp_path / "a")
    assert not trace.exists()


def test_a_run_folder_is_refused_with_the_path_of_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"the run folder .*: use .*checkpoints/best\.ckpt"):
        read_checkpoint(tmp_path)
