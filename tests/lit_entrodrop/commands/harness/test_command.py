"""The harness scores a small local task as our own choice metric does."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.cli.main import main
from lit_entrodrop.evaluation.task.settings import TaskSettings
from lit_entrodrop.evaluation.task.task import Task
from lit_entrodrop.runtime.ranks import DataRank
from tests.helpers.tiny import Tiny, texts

pytest.importorskip("lm_eval")
ITEMS = [
    {"prompt": text, "choices": [" acute heart", " mild", " cough with two"], "answer": number % 3}
    for number, text in enumerate(texts(12))
]
TASK = """task: local_exam
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc_norm, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def checkpoint(tiny: Tiny) -> tuple[Path, Any]:
    module, path = tiny.module(), tiny.folder / "trained.ckpt"
    trainer = tiny.trainer(max_steps=2)
    trainer.fit(module, datamodule=tiny.data())
    trainer.save_checkpoint(path)
    return path, module


def run(*arguments: object) -> None:
    main(["harness", *map(str, arguments)])


def test_a_local_task_is_scored_as_choices_are(
    checkpoint: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, module = checkpoint
    for name in ("tasks", "temporary"):
        (tmp_path / name).mkdir()
    items = tmp_path / "exam.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (tmp_path / "tasks" / "exam.yaml").write_text(TASK.format(file=items))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    output = tmp_path / "results.json"
    own = ["--include_path", tmp_path / "tasks", "--tasks", "local_exam"]
    run("--ckpt_path", path, *own, "--output", output, "--batch_size", 5)
    result = json.loads(output.read_text())
    scores = Task(TaskSettings(str(items), metric="choice"), module.tokenizer, 64).score(
        module.causal_lm, DataRank(1, 0, True)
    )
    assert result["results"]["local_exam"]["acc_norm,none"] == pytest.approx(
        sum(each.score for each in scores) / len(ITEMS)
    )
    assert result["n-samples"]["local_exam"]["effective"] == len(ITEMS)
    assert "|local_exam|" in capsys.readouterr().out
    # Tasks are programs, and a wrong one may raise anything.
    wrong = TASK.format(file=items).replace("test_split: test", "test_split: none")
    (tmp_path / "tasks" / "exam.yaml").write_text(wrong)
    with pytest.raises(SystemExit, match=r"local_exam cannot be run .*\(KeyError: 'none'\)"):
        run("--ckpt_path", path, *own)
    with pytest.raises(SystemExit, match="chat: expected a model with a chat template"):
        run("--ckpt_path", path, *own, "--chat", "true")
    with pytest.raises(SystemExit, match="weights: expected a checkpoint with an average"):
        run("--ckpt_path", path, *own, "--weights", "averaged")
    assert not list((tmp_path / "temporary").iterdir())


def test_wrong_arguments_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="include_path: expected a folder of tasks"):
        run("--ckpt_path", "a", "--tasks", "b", "--include_path", tmp_path / "none")
    with pytest.raises(SystemExit, match="limit: expected a whole number"):
        run("--ckpt_path", "a", "--tasks", "b", "--limit", 0)
    with pytest.raises(SystemExit, match="tasks: expected names of tasks, got ' , '"):
        run("--ckpt_path", "a", "--tasks", " , ")
    with pytest.raises(SystemExit, match="could not be written"):
        run("--ckpt_path", "a", "--tasks", "b", "--output", tmp_path)
    (tmp_path / "broken.yaml").write_text("task: [")
    with pytest.raises(SystemExit, match=r"include_path: expected \.yaml files with a line `task"):
        run("--ckpt_path", "a", "--tasks", "b", "--include_path", tmp_path)


def test_a_missing_harness_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_entrodrop.commands.harness.command.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'lit-entrodrop\[lm-eval\]'"):
        run("--ckpt_path", "a", "--tasks", "b")
