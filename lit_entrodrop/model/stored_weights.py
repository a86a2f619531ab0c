"""Weights in the files of a pretrained model, without loading them."""

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from lit_entrodrop.model.loading import locate


def stored_weights(source: str) -> dict[str, Tensor]:
    """Return the weights in the safetensors files of a pretrained model, by their names there.

    They are mapped into memory: the system reads a page when it is used, and may drop it again.

    Args:
        source: Location of the model, see :func:`~lit_entrodrop.model.loading.locate`.

    Returns:
        All weights; none if there are no such files on this machine.

    >>> stored_weights("package:lit_entrodrop/model/tiny_base")["model.norm.weight"].shape
    torch.Size([192])
    """
    weights: dict[str, Tensor] = {}
    for path in _files(locate(source).name):
        with safe_open(path, framework="pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return weights


def _files(name: str) -> list[str]:
    try:
        index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, local_files_only=True)
    except OSError:
        index = None
    try:
        if index is None:
            return [str(cached_file(name, SAFE_WEIGHTS_NAME, local_files_only=True))]
        shards = json.loads(Path(index).read_text())["weight_map"].values()
        return [str(cached_file(name, each, local_files_only=True)) for each in sorted({*shards})]
    except OSError:
        return []
