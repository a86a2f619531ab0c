"""What each rank holds and draws, and what a sharded run may be resumed from."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runs.checkpoints.reading import SafeReader
from lit_entrodrop.runs.checkpoints.table_digest import write_digest
from lit_entrodrop.training.strategies.sharded_init import ShardedInit
from tests.helpers.processes import run_cli_ranks, run_ranks
from tests.helpers.tiny import CONFIGS, Tiny


def strategy(name: str) -> list[str]:
    return ["--config", str(CONFIGS / "strategy" / f"{name}.yaml")]


def init_on(rank: int, lm: LMConfig) -> None:
    built = []

    def build_whole() -> Any:
        built.append(rank)
        return build_causal_lm(lm)

    torch.manual_seed(rank)
    init = ShardedInit(lm, build_whole, torch.device("cpu"))
    units = list(init.units())
    assert built == ([0] if rank == 0 else [])
    assert len(units) == 3
    total = torch.stack([p.detach().double().sum() for p in init.causal_lm.parameters()])
    both = [torch.empty_like(total) for _ in range(2)]
    dist.all_gather(both, total)
    assert torch.equal(*both)


def test_the_first_rank_alone_builds_a_model_and_others_get_its_weights(tiny: Tiny) -> None:
    run_ranks(init_on, tiny.folder, tiny.lm())


@pytest.mark.parametrize(("name", "equal"), [("ddp", False), ("fsdp2_tp", True)])
def test_random_numbers_are_shared_within_a_tensor_parallel_group_alone(
    tiny: Tiny, name: str, equal: bool
) -> None:
    folder = tiny.folder / "draws"
    folder.mkdir()
    tiny.run_ranks(
        "fit",
        *strategy(name),
        "--trainer.max_steps=2",
        "--model.lm.config_overrides={num_key_value_heads: 2}",
        "--model.regularizers+=tests.helpers.plugins.KeepDraws",
        f"--model.regularizers.folder={folder}",
    )
    for step in (0, 1):
        first, second = (torch.load(folder / f"{rank}-{step}.pt") for rank in (0, 1))
        assert torch.equal(first, second) == equal
    assert not torch.equal(torch.load(folder / "0-0.pt"), torch.load(folder / "0-1.pt"))


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_code_in_shards_is_not_run_on_resume(tiny: Tiny) -> None:
    fit = [
        "fit",
        *tiny.config(),
        *strategy("fsdp2"),
        f"--trainer.default_root_dir={tiny.folder / 'run'}",
    ]
    fit += ["--trainer.devices=1"]
    (first,) = run_cli_ranks(*fit, "--trainer.max_epochs=1", folder=tiny.folder, world_size=1)
    assert first.returncode == 0, first.stdout
    shards, trace = (
        (tiny.folder / "run" / "checkpoints" / "last.ckpt").resolve(),
        tiny.folder / "trace",
    )
    poison(shards, trace)
    (resumed,) = run_cli_ranks(*fit, "--ckpt_path=last", folder=tiny.folder, world_size=1)
    assert not trace.exists()
    assert resumed.returncode == 1
    assert "cannot be read (UnpicklingError)" in resumed.stdout


def poison(shards: Path, trace: Path) -> None:
    """Put code in the place of a value of the optimizer."""
    reader = SafeReader(shards)
    contents = reader.read_metadata()
    values = contents.state_dict_metadata.items()
    name = next(name for name, item in values if isinstance(item, BytesStorageMetadata))
    place = next(info for index, info in contents.storage_data.items() if index.fqn == name)
    other = shards.parent / "poison"
    dcp.save({name: Payload(trace)}, checkpoint_id=other, no_dist=True)
    if trace.exists():
        trace.rmdir()
    poisoned = SafeReader(other).read_metadata()
    source = next(iter(poisoned.storage_data.values()))
    code = (other / source.relative_path).read_bytes()[source.offset :][: source.length]
    file = shards / place.relative_path
    content = file.read_bytes()
    file.write_bytes(content + code)
    place.offset, place.length = len(content), len(code)
    (shards / ".metadata").write_bytes(pickle.dumps(contents))
    write_digest(shards)


def test_a_run_is_resumed_only_under_the_strategy_that_wrote_it(tiny: Tiny) -> None:
    run = tiny.run("fit", "--trainer.max_epochs=1")
    place = [f"--trainer.default_root_dir={run}", "--trainer.devices=1"]
    words = ["fit", *tiny.config(), *strategy("fsdp"), *place, "--ckpt_path=last"]
    (resumed,) = run_cli_ranks(*words, folder=tiny.folder, world_size=1)
    assert resumed.returncode == 1
    assert "which SingleDeviceStrategy wrote: resume with that strategy" in resumed.stdout
