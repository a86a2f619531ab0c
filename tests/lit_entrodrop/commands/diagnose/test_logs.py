from pathlib import Path

import numpy as np
import pytest

from lit_entrodrop.commands.diagnose.curves import DiagnosedLog, read_curves
from lit_entrodrop.commands.diagnose.logs import find_logs

# Logs of real runs: `make_logs.py` in the folder says how they were made.
LOGS = Path(__file__).parent / "logs"


def diagnosed(path: Path) -> DiagnosedLog:
    [read] = find_logs(path)
    return read_curves(read())


def test_all_logs_in_a_folder_are_found_and_all_these_runs_overfit() -> None:
    found = [read_curves(read()) for read in find_logs(LOGS)]
    assert [each.log.trainer.name.split()[0] for each in found] == [
        "Trainer",
        "CSV,",
        "TensorBoard",
        "TensorBoard",
    ]
    assert [each.verdicts[0].kind for each in found] == ["overfits"] * 4
    assert all(each.drops is not None and each.drops.shown for each in found)
    assert not any(each.notes for each in found)


@pytest.mark.parametrize(
    ("log", "tensorboard"),
    [
        ("hugging_face", "tensorboard_hugging_face"),
        ("lightning/version_0/metrics.csv", "tensorboard_lightning"),
    ],
)
def test_tensorboard_has_the_same_curves(log: str, tensorboard: str) -> None:
    one, other = diagnosed(LOGS / log), diagnosed(LOGS / tensorboard)
    for first, second in zip(
        (one.training, *one.validations), (other.training, *other.validations), strict=True
    ):
        assert first.steps.tolist() == second.steps.tolist()
        assert np.allclose(first.losses, second.losses, atol=1e-5)
        assert np.allclose(first.epochs, second.epochs, atol=1e-5)
    assert one.validations[0].epochs[-1] == 8


def test_the_last_checkpoint_of_a_folder_is_read(tmp_path: Path) -> None:
    state = (LOGS / "hugging_face/checkpoint-240/trainer_state.json").read_text()
    for step, text in {90: "{}", 240: state}.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert diagnosed(tmp_path).verdicts[0].kind == "overfits"


def test_lines_of_llama_factory_are_read_and_damaged_ones_counted(tmp_path: Path) -> None:
    path = tmp_path / "trainer_log.jsonl"
    lines = [
        f'{{"current_steps": {step}, "total_steps": 40, "loss": {3 - step / 40}, "lr": 1e-4, '
        f'"epoch": {step / 20}, "percentage": 10.0, "elapsed_time": "0:00:09"}}'
        for step in range(5, 41, 5)
    ]
    lines.insert(4, '{"current_steps": 20, "eval_loss": 2.5, "epoch": 1.0}')
    path.write_text("\n".join([*lines, '{"current_steps": 4']))
    found = diagnosed(path)
    assert found.training.epochs[-1] == 2
    assert found.validations[0].losses.tolist() == [2.5]
    assert found.notes == ["1 of 10 lines could not be read."]


def test_unusual_bytes_and_numbers_are_read(tmp_path: Path) -> None:
    state, lines = tmp_path / "trainer_state.json", tmp_path / "trainer_log.jsonl"
    huge = 10**400
    history = f'{{"step": 1, "loss": 2}}, {{"step": 2, "loss": 1}}, {{"step": 3, "loss": {huge}}}'
    state.write_text(f'{{"log_history": [{history}]}}', encoding="utf-8-sig")
    found = diagnosed(state)
    assert found.training.losses.tolist() == [2, 1]
    assert found.broken is found.training
    lines.write_bytes('{"loss": 2, "name": "é"}\n'.encode("latin1") + b"[" * 100_000)
    found = diagnosed(lines)
    assert found.training.losses.tolist() == [2]
    assert "1 of 2 lines could not be read." in found.notes


def test_our_own_run_is_referred_to_the_report(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,5,2.5,\n0,5,,2.6\n")
    (tmp_path / "run.json").write_text("{}")
    assert "lit-entrodrop report --runs" in diagnosed(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trainer_state.json", "", "got text that is not JSON"),
        ("trainer_state.json", "{}", "got JSON without a list `log_history`"),
        ("trainer_state.json", '{"log_history": []}', "has logged nothing yet"),
        ("trainer_state.json", "[" * 100_000, "got text that is not JSON"),
        ("metrics.csv", "", "got a file that cannot be read"),
        ("metrics.csv", "epoch,step,loss\n", "got no rows"),
        ("metrics.csv", "step,accuracy\n1,0.5\n", "metrics.csv: .*no name with `loss` among"),
        ("metrics.csv", "step,val_loss\n1,nan\n", "expected finite losses, found none in val_loss"),
        ("trainer_log.jsonl", "not JSON\n", "expected a JSON object with losses on each line"),
        ("events.out.tfevents.1.x", "nothing", "expected event files with scalars, found none"),
        ("notes.txt", "", "got another kind of file"),
    ],
)
def test_unusable_files_are_errors(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        diagnosed(tmp_path / name)


def test_folders_without_logs_and_missing_ones_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none of them: name the folder"):
        find_logs(tmp_path)
    with pytest.raises(ValueError, match="expected a log or a folder with logs, found neither"):
        find_logs(tmp_path / "missing")
