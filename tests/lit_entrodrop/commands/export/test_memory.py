"""No more than one copy of the weights is in memory, whichever strategy wrote them."""

import ctypes
from dataclasses import asdict, replace
from pathlib import Path
from shutil import copyfile

import torch
import torch.distributed.checkpoint as dcp

from lit_entrodrop.commands.export import export
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from tests.helpers.processes import run_forked
from tests.helpers.tiny import LLAMA
from tests.helpers.zero import write_zero

# 120 MiB in fp32.
LARGE = {
    **LLAMA,
    "vocab_size": 8000,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
# What libraries load when they are first used, and what is in work on one layer: 30 to 70 MiB, here
# with room that is still less than a second copy of the weights.
OVERHEAD = 100 * 2**20


def export_and_report(path: Path) -> None:
    """Export in this process, and print by how many bytes it has grown at most."""
    # The export must not take memory that was freed before, and is still counted.
    ctypes.CDLL(None).malloc_trim(0)
    # Lowers VmHWM, the largest size that a process had, pages of mapped files included.
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    options = {"format": "gguf"} if path.name == "gguf" else {"max_shard_size": "40MB"}
    export(str(path), f"{path}.out", **options)
    print("grew by", status("VmHWM") - before)


def status(key: str) -> int:
    """Return a size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(key)]
    return int(line.split()[1]) * 1024


def write_file(path: Path, lm: LMConfig) -> Path:
    causal_lm = build_causal_lm(lm)
    weights = {f"causal_lm.{name}": tensor for name, tensor in causal_lm.state_dict().items()}
    state = {"lm": asdict(lm), "hf_config": causal_lm.unwrapped.config.to_dict()}
    torch.save({**state, "state_dict": weights}, path)
    return path


def write_shards(path: Path, file: Path) -> Path:
    checkpoint = torch.load(file, mmap=True)
    dcp.save({"state_dict": checkpoint.pop("state_dict")}, checkpoint_id=path, no_dist=True)
    torch.save(checkpoint, path / "meta.pt")
    return path


def test_one_copy_of_the_weights(tmp_path: Path, tiny_tokenizer: Path) -> None:
    # Exports fork with them.
    import bitsandbytes  # noqa: F401
    import deepspeed  # noqa: F401
    import peft  # noqa: F401

    lm = LMConfig(pretrained=None, architecture=LARGE, tokenizer=str(tiny_tokenizer))
    file = write_file(tmp_path / "file", lm)
    paths = [
        file,
        copyfile(file, tmp_path / "gguf"),
        write_file(tmp_path / "lora", replace(lm, lora=LoRAConfig(rank=2))),
        write_shards(tmp_path / "shards", file),
        write_zero(tmp_path / "zero", lm, 3, steps=1),
    ]
    for path in paths:
        result = run_forked(export_and_report, path, cwd=tmp_path)
        assert result.returncode == 0, result.stdout
        [growth] = [int(line.split()[-1]) for line in result.stdout.splitlines() if "grew" in line]
        out = path.with_name(f"{path.name}.out")
        files = [*out.glob("*.safetensors"), *out.glob("*.gguf")]
        size = sum(file.stat().st_size for file in files)
        assert size > 120 * 2**20
        assert growth < size + OVERHEAD, path.name
