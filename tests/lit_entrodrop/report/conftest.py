from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.report import write_report
from tests.helpers.run_folder import write_run

OPTIONAL = (
    "clean_train",
    "forgetting",
    "memorized",
    "regularizer",
    "samples",
    "evaluations",
    "run.json",
    "config",
    "throughput",
)
COMPARISON: dict[str, Any] = {
    "schema": 1,
    "baseline": "full",
    "split": "test",
    "arms": {
        "full": {"runs": ["a", "b"], "metrics": {"loss": {"mean": 3.75}}},
        "bare": {"runs": ["c"], "chosen": "0.9", "metrics": {"loss": {"mean": 3.5}}},
    },
    "contrasts": [
        {
            "arm": "bare",
            "against": "full",
            "difference": -0.25,
            "interval": [-0.3, -0.2],
            "p": 1e-5,
            "p_corrected": 0.02,
            "verdict": "better",
        },
        {"arm": "bare <i>", "against": "full", "difference": 0.125, "interval": None},
    ],
    "notes": ["Two seeds alone."],
}


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every part, and its page."""
    folder = write_run(tmp_path_factory.mktemp("report") / "full")
    write_report(folder, {"full": folder})
    return folder


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has left its metrics alone, and its page."""
    folder = write_run(tmp_path_factory.mktemp("report") / "bare", without=OPTIONAL)
    write_report(folder, {"bare": folder})
    return folder


@pytest.fixture(scope="session")
def several(full: Path, bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on two runs and their comparison."""
    folder = tmp_path_factory.mktemp("several") / "page"
    return write_report(folder, {"full": full, "bare": bare}, COMPARISON, "Two & a half")
