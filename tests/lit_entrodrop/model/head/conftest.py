import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_entrodrop.model.head import triton_kernel


@pytest.fixture(scope="session")
def call() -> Iterator[Callable[..., Any]]:
    """Call a function where Triton can run it: on a GPU, or in the interpreter's process.

    Triton reads TRITON_INTERPRET when it is first imported, so the interpreter has its own process.
    """
    if torch.cuda.is_available():
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            # The process inherits this path, to import the tests.
            patch.syspath_prepend(Path(__file__).parents[4])
            assert pool.submit(triton_kernel.obstacle, "cpu").result() is None
        yield lambda function, *arguments: pool.submit(function, *arguments).result()
