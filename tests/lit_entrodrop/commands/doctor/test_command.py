import json
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.cli.main import main
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

ENTRODROP = str(CONFIGS / "regularizers" / "entrodrop.yaml")


def doctor(tiny: Tiny, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command, and return its exit status and what it wrote."""
    output = tiny.folder / "found" / "doctor.json"
    place = ["--trainer.default_root_dir", str(tiny.folder / "run"), "--json", str(output)]
    try:
        main(["doctor", *tiny.config(), *place, *words])
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, json.loads(output.read_text())


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in report["checks"]}


def test_sound_config_ends_with_0_and_writes_nothing_of_a_run(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tiny.corpus, texts(200, longest=6))
    status, report = doctor(tiny, "--config", ENTRODROP)
    output = capsys.readouterr().out
    assert status == 0, output
    assert report["schema"] == 1
    assert report["status"] == "pass"
    assert "fail" not in statuses(report).values()
    assert "skip" not in statuses(report).values()
    assert statuses(report)["masks are applied"] == "pass"
    assert all(check["remedy"] for check in report["checks"] if check["status"] == "warn")
    themes = list(dict.fromkeys(check["theme"] for check in report["checks"]))
    assert themes == ["device", "data", "disk", "schedule", "model", "regularizers"]
    assert "masks are applied: entro_drop at" in output
    assert not (tiny.folder / "run").exists()
    assert not list(Path().glob("lightning_logs"))


def test_failure_ends_with_1_and_the_other_checks_run(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = '[{"class_path": "tests.helpers.misfits.Broken"}]'
    status, report = doctor(tiny, f"--model.regularizers={broken}")
    assert status == 1
    assert report["status"] == "fail"
    found = statuses(report)
    assert found["masks are applied"] == "fail"
    assert found["accumulation"] == "fail"
    assert found["train mode"] == "pass"
    assert "fail masks are applied: RuntimeError: this plug-in has a bug" in capsys.readouterr().out


def test_quick_runs_no_model(tiny: Tiny) -> None:
    status, report = doctor(tiny, "--quick")
    assert status == 0
    found = statuses(report)
    assert found["near duplicates"] == "pass"
    assert found["train mode"] == found["curricula"] == "skip"
    assert "building the model" not in found


def test_text_that_cannot_be_read_fails_and_the_device_is_checked(tiny: Tiny) -> None:
    status, report = doctor(tiny, "--data.corpus", str(tiny.folder / "none.jsonl"))
    assert status == 1
    found = statuses(report)
    assert found["reading the text"] == "fail"
    assert found["device memory"] == "pass"
    assert found["padding"] == found["steps"] == found["train mode"] == "skip"
    reading = next(c for c in report["checks"] if c["name"] == "reading the text")
    assert "none.jsonl does not exist" in reading["found"]


def test_model_that_fit_refuses_fails_with_the_same_message(tiny: Tiny) -> None:
    status, report = doctor(tiny, "--data.block_size=65")
    assert status == 1
    found = statuses(report)
    assert found["building the model"] == found["context length"] == "fail"
    assert found["train mode"] == "skip"


@pytest.mark.parametrize("flag", ["--data.batch_size=none", "--trainer.no_such=1"])
def test_invalid_config_is_reported_in_one_line(
    tiny: Tiny, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *tiny.config(), flag])
    assert ended.value.code
    assert "error:" in capsys.readouterr().err.strip().splitlines()[-1]


def test_help_names_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert not ended.value.code
    output = capsys.readouterr().out
    assert "--quick" in output
    assert "--json FILE" in output
