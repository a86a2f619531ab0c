import json
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.report import write_report
from tests.helpers.comparing import compared, content
from tests.helpers.run_folder import write_run
from tests.helpers.tiny import Tiny, texts, write_corpus

OPTIONAL = (
    "clean_train",
    "forgetting",
    "memorized",
    "regularizer",
    "samples",
    "task",
    "evaluations",
    "run.json",
    "config",
    "throughput",
    "sets",
)
ARMS = {"entrodrop": "entrodrop", "random": "random_token_dropout"}


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
    """A page on two runs."""
    folder = tmp_path_factory.mktemp("several") / "page"
    return write_report(folder, {"full": full, "bare": bare}, title="Two & a half")


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """The page of a comparison of the tiny model, beside its ``comparison.json``."""
    folder = tmp_path_factory.mktemp("comparison")
    tiny = Tiny(folder, tiny_tokenizer, write_corpus(folder / "corpus.jsonl", texts(60)))
    arms = {name: [f"configs/regularizers/{file}.yaml"] for name, file in ARMS.items()}
    data: dict[str, Any] = {"data": {"test": 0.3, "forgetting": str(tiny.corpus)}}
    exam = folder / "exam.jsonl"
    items = [{"prompt": text, "choices": ["a", "of"], "answer": 0} for text in texts(4)]
    exam.write_text("".join(json.dumps(item) + "\n" for item in items))
    data["monitors"] = {"task": {"file": str(exam), "metric": "choice"}}
    settings: dict[str, Any] = {
        "arms": {"plain": [], **arms},
        "seeds": [0],
        "contrasts": [["entrodrop", "random"]],
    }
    base = [*content(tiny)["base"], data]
    compared(tiny, folder / "out", base=base, title="Three <i>arms</i> & more", **settings)
    return folder / "out" / "report.html"
