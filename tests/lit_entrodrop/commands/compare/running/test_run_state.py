from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lit_entrodrop.cli.fit_config import resolved_config
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


def test_settings_that_a_later_version_added_have_their_defaults(run: PlannedRun) -> None:
    later = replace(run, config=resolved_config(["--config=configs/base.yaml"]))
    earlier = deepcopy(later.config)
    del earlier["model"]["weight_decay_schedule"]
    claim(replace(run, config=earlier))
    check_claim(later)
    changed = deepcopy(later.config)
    changed["model"]["layer_lr_decay"] = 0.5
    with pytest.raises(ValueError, match=r"but model\.layer_lr_decay is 0\.5, not 1\.0: change"):
        check_claim(replace(run, config=changed))
