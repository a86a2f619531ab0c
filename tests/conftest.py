"""Every test runs on one thread, offline, in a home of its own, and leaves no trace in the process.

The variables are set before anything imports Transformers, which reads them once.
"""

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.helpers.browsing import OPTIONS, program

HOME = tempfile.TemporaryDirectory(prefix="lit-entrodrop-tests-")
os.environ.update(
    HOME=HOME.name,
    HF_HOME=HOME.name,
    HF_HUB_OFFLINE="1",
    TORCHINDUCTOR_CACHE_DIR=os.path.join(HOME.name, "inductor"),
    # Each process that imports Inductor would else start workers, which import PyTorch for seconds.
    TORCHINDUCTOR_COMPILE_THREADS="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    MLFLOW_DISABLE_TELEMETRY="true",
)
for name in ("LIT_ENTRODROP_TRACEBACK", "PL_GLOBAL_SEED", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what all tests share, while it grows and afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    HOME.cleanup()
    # Else bindings report leaks at the end of the process.
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    """Restore threads and environment variables, and end a process group left behind."""
    import torch

    torch.set_num_threads(1)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing")
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    driver = program("chromedriver")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()
