"""Weights are found where the ranks of ZeRO put them; real checkpoints: test_zero_checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.runs.checkpoints.zero_layout import find_weights, read_weight

SHAPES = [{"a": torch.Size([3]), "b": torch.Size([2, 2])}, {"c": torch.Size([])}]
WEIGHTS = {
    "a": torch.tensor([0.0, 1, 2]),
    "b": torch.tensor([[3.0, 4], [5, 6]]),
    "c": torch.tensor(7.0),
}
NOTHING: dict[str, Any] = {
    "module": {},
    "buffer_names": [],
    "frozen_param_shapes": None,
    "shared_params": {},
}


def on_disk(folder: Path, *ranks: Any) -> dict[Path, Any]:
    """Write what each rank holds and return it without its content."""
    taken = len(list(folder.iterdir()))
    files = {folder / f"{taken + rank}.pt": state for rank, state in enumerate(ranks)}
    for file, state in files.items():
        torch.save(state, file)
    return {file: torch.load(file, map_location="meta") for file in files}


def vectors(key: str, *groups: list[float], **settings: Any) -> dict[str, Any]:
    return {
        "optimizer_state_dict": {
            key: [torch.tensor(group, dtype=torch.float32) for group in groups],
            **settings,
        }
    }


def read(folder: Path, stage: int, *ranks: Any, **model: Any) -> dict[str, Tensor]:
    models = on_disk(folder, {**NOTHING, "param_shapes": SHAPES, **model})
    optimizers = on_disk(folder, *ranks)
    places = find_weights(models, optimizers, stage)
    return {name: read_weight(place) for name, place in places.items()}


FLAT2, FLAT3 = "single_partition_of_fp32_groups", "fp32_flat_groups"


@pytest.mark.parametrize("last", [[7.0, 0.0], [7.0]], ids=["padded", "padding left out"])
def test_vectors_cut_over_ranks(tmp_path: Path, last: list[float]) -> None:
    ranks = vectors(FLAT2, [0, 1, 2, 3], last), vectors(FLAT2, [4, 5, 6], [])
    torch.testing.assert_close(read(tmp_path, 2, *ranks), WEIGHTS, atol=0, rtol=0)


def test_padding_within_a_vector(tmp_path: Path) -> None:
    paddings = [[1, 0], [0]]
    ranks = (
        vectors(FLAT2, [0, 1, 2, -1], [7], param_alignment_paddings=paddings),
        vectors(FLAT2, [3, 4, 5, 6], [], param_alignment_paddings=paddings),
    )
    torch.testing.assert_close(read(tmp_path, 2, *ranks), WEIGHTS, atol=0, rtol=0)


def test_weights_cut_over_ranks(tmp_path: Path) -> None:
    # The vectors of a rank need not end where a weight does.
    ranks = vectors(FLAT3, [0, 1, 3], [4, 7.0]), vectors(FLAT3, [2, -1, 5], [6, -1.0])
    torch.testing.assert_close(read(tmp_path, 3, *ranks), WEIGHTS, atol=0, rtol=0)


def test_shared_weights_and_buffers(tmp_path: Path) -> None:
    ranks = vectors(FLAT3, [0, 1, 3, 4, 7]), vectors(FLAT3, [2, -1, 5, 6, -1])
    count = {"count": torch.tensor(3)}
    weights = read(
        tmp_path,
        3,
        *ranks,
        module=count,
        buffer_names=["count"],
        shared_params={"head": "b", "lost": "nowhere"},
    )
    expected = {**count, **WEIGHTS, "head": WEIGHTS["b"]}
    torch.testing.assert_close(weights, expected, atol=0, rtol=0)


@pytest.mark.parametrize("stage", [2, 3])
def test_vectors_of_other_lengths_are_refused(tmp_path: Path, stage: int) -> None:
    key = FLAT3 if stage == 3 else FLAT2
    with pytest.raises(ValueError, match=r"expected \d+ weights in a vector .*, got \d+"):
        read(tmp_path, stage, *[vectors(key, [0.0] * 9, [0.0] * 9)] * 2)


def test_file_that_has_become_shorter_is_named(tmp_path: Path) -> None:
    ranks = vectors(FLAT3, [0, 1, 3, 4, 7]), vectors(FLAT3, [2, -1, 5, 6, -1])
    models = on_disk(tmp_path, {**NOTHING, "param_shapes": SHAPES})
    places = find_weights(models, on_disk(tmp_path, *ranks), 3)
    (tmp_path / "2.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2\.pt is truncated"):
        read_weight(places["a"])
