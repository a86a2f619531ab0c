"""What other programs start: two nodes by torchrun, as docs/launching.md says."""

import os
import time
from pathlib import Path

from torch.distributed.run import main as torchrun

from tests.helpers.processes import fork, free_port, kill
from tests.helpers.runs import assert_same_curves, exported, fit
from tests.helpers.tiny import CONFIGS, Tiny

FSDP2 = ["--config", str(CONFIGS / "strategy/fsdp2.yaml")]


def run_node(tiny: Tiny, number: int, port: int, root: Path, log: Path) -> None:
    """Run torchrun as on one of two nodes of one device each; it starts a fresh interpreter."""
    with log.open("w") as said:
        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
    os.chdir(CONFIGS.parent)
    nodes = ["--nnodes=2", "--nproc_per_node=1", f"--node_rank={number}"]
    place = ["--master_addr=127.0.0.1", f"--master_port={port}"]
    settings = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.log_every_n_steps=1"]
    command = ["-m", "lit_entrodrop", "fit", *tiny.config(), *FSDP2, *settings]
    torchrun([*nodes, *place, *command, f"--trainer.default_root_dir={root}"])


def test_two_nodes_train_as_two_ranks_of_one_node_do(tiny: Tiny) -> None:
    port, root = free_port(), tiny.folder / "nodes"
    logs = [tiny.folder / f"node{number}.log" for number in (0, 1)]
    nodes = [fork(run_node, tiny, number, port, root, log) for number, log in enumerate(logs)]
    deadline = time.monotonic() + 150
    for node in nodes:
        node.join(timeout=max(0.0, deadline - time.monotonic()))
        if node.exitcode is None:
            kill(node)
    # If one fails, the reason is often in the output of the other.
    assert [node.exitcode for node in nodes] == [0, 0], "\n".join(log.read_text() for log in logs)
    ranks = fit(tiny, "ranks", *FSDP2, world_size=2)
    assert_same_curves(root, ranks, 0.0)
    assert all((weight == exported(ranks)[name]).all() for name, weight in exported(root).items())
