"""What a rank really sends: the collectives of a training step, with their bytes."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.distributed_c10d import ProcessGroup, _resolve_process_group
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Collectives(TorchDispatchMode):
    """Add up the bytes that collectives of floating-point numbers send if they are rings."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, float] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked for, and count it if it is a collective."""
        name = function.overloadpacket.__name__
        if function.namespace in ("c10d", "_c10d_functional") and name in RINGS:
            tensors = [each for each in tree_leaves(args) if isinstance(each, Tensor)]
            whole = max((each.nbytes for each in tensors if each.is_floating_point()), default=0)
            size = _group_size(args)
            kind, rounds = RINGS[name]
            self.sent[kind] = self.sent.get(kind, 0) + rounds * whole * (size - 1) / size
        return function(*args, **(kwargs or {}))


RINGS = {
    "_allgather_base_": ("gather", 1),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "allreduce_": ("all_reduce", 2),
    "all_reduce": ("all_reduce", 2),
}


def _group_size(arguments: tuple[Any, ...]) -> int:
    for each in arguments:
        if isinstance(each, str) and each.isdigit():
            return _resolve_process_group(each).size()
        if isinstance(each, torch.ScriptObject) and "ProcessGroup" in str(each._type()):
            group: ProcessGroup = ProcessGroup.unbox(each)
            return group.size()
    raise AssertionError(f"no group among {arguments}")


class CountTraffic(L.Callback):
    """Writes down what the first rank sends in its second optimizer step.

    The first one also finds out in which order modules run.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.collectives = Collectives()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            self.collectives.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not self.collectives:
            return
        self.collectives.__exit__(None, None, None)
        if trainer.is_global_zero:
            self.file.write_text(json.dumps(self.collectives.sent))
