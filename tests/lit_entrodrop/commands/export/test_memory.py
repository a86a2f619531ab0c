"""No more than one copy of the weights is in memory, whichever strategy wrote them."""

from dataclasses import asdict, replace
from pathlib import Path
from shutil import copyfile

import torch
import torch.distributed.checkpoint as dcp

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from tests.helpers.processes import python
from tests.helpers.tiny import CONFIGS, LLAMA
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
# Each export is a process of its own, as the next could take memory that the last has freed. VmHWM
# is the largest size that a process had, pages of mapped files included.
SCRIPT = """
import os, sys
import bitsandbytes, deepspeed, peft, transformers.models.llama.modeling_llama
from lit_entrodrop.commands.export import export
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
for path in sys.argv[1:]:
    if os.fork() == 0:
        open("/proc/self/clear_refs", "w").write("5")
        before = status("VmRSS")
        options = {"format": "gguf"} if path.endswith("gguf") else {"max_shard_size": "40MB"}
        export(path, path + ".out", **options)
        print("grew by", status("VmHWM") - before, flush=True)
        os._exit(0)
    os.wait()
"""


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
    lm = LMConfig(pretrained=None, architecture=LARGE, tokenizer=str(tiny_tokenizer))
    file = write_file(tmp_path / "file", lm)
    paths = [
        file,
        copyfile(file, tmp_path / "gguf"),
        write_file(tmp_path / "lora", replace(lm, lora=LoRAConfig(rank=2))),
        write_shards(tmp_path / "shards", file),
        write_zero(tmp_path / "zero", lm, 3, steps=1),
    ]
    result = python("-c", SCRIPT, *map(str, paths), cwd=CONFIGS.parent)
    assert result.returncode == 0, result.stderr
    grown = [int(line.split()[-1]) for line in result.stdout.splitlines() if "grew" in line]
    for path, growth in zip(paths, grown, strict=True):
        out = path.with_name(f"{path.name}.out")
        files = [*out.glob("*.safetensors"), *out.glob("*.gguf")]
        size = sum(file.stat().st_size for file in files)
        assert size > 120 * 2**20
        assert growth < size + OVERHEAD, (path.name, grown)
