from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.running.run_state import check_claim, claim, config_file

CONFIG = {"model": {"seed": 1}, "seed_everything": 0}


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    return PlannedRun("plain", {}, 0, tmp_path, CONFIG)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"config_hash": "a'])
def test_mark_that_cannot_be_read_is_told(run: PlannedRun, content: str) -> None:
    claim(run)
    path = run.folder / "compare" / "mark.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"{path}, got something else .*: remove {run.folder}"):
        check_claim(run)


def test_lost_config_is_reported_or_written_anew(run: PlannedRun) -> None:
    claim(run)
    config_file(run).unlink()
    other = replace(run, config={**run.config, "seed_everything": 9})
    with pytest.raises(ValueError, match=r"the config differs, and .*fit\.yaml cannot be read"):
        check_claim(other)
    config_file(run).write_text("a: [")
    with pytest.raises(ValueError, match=r"fit\.yaml cannot be read: change it back"):
        check_claim(other)
    config_file(run).unlink()
    claim(run)
    assert yaml.safe_load(config_file(run).read_text()) == run.config
