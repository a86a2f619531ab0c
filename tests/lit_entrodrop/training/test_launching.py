"""What other programs start: two nodes by torchrun, as docs/launching.md says."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import free_port
from tests.helpers.runs import assert_same_curves, exported, fit
from tests.helpers.tiny import CONFIGS, Tiny

FSDP2 = ["--config", str(CONFIGS / "strategy/fsdp2.yaml")]


def start_node(tiny: Tiny, number: int, port: int, root: Path) -> subprocess.Popen[str]:
    """Start torchrun as on one of two nodes of one device each."""
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    place = [f"--node_rank={number}", "--master_addr=127.0.0.1", f"--master_port={port}"]
    settings = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.log_every_n_steps=1"]
    command = ["-m", "lit_entrodrop", "fit", *tiny.config(), *FSDP2, *settings]
    return subprocess.Popen(
        [sys.executable, *torchrun, *place, *command, f"--trainer.default_root_dir={root}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CONFIGS.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_nodes_train_as_two_ranks_of_one_node_do(tiny: Tiny) -> None:
    port, root = free_port(), tiny.folder / "nodes"
    nodes = [start_node(tiny, number, port, root) for number in (0, 1)]
    try:
        # If one fails, the reason is often in the output of the other.
        said = "\n".join(node.communicate(timeout=150)[0] for node in nodes)
        assert [node.returncode for node in nodes] == [0, 0], said
    finally:
        for node in nodes:
            node.kill()
    ranks = fit(tiny, "ranks", *FSDP2, world_size=2)
    assert_same_curves(root, ranks, 0.0)
    assert all((weight == exported(ranks)[name]).all() for name, weight in exported(root).items())
