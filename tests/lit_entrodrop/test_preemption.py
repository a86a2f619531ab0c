"""Two real ranks, of which one is told to end."""

import re

import pytest

from tests.helpers.processes import python
from tests.helpers.tiny import CONFIGS, Tiny


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_end_together_after_one_was_told_to(tiny: Tiny, rank: int) -> None:
    two_ranks = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    told = ["--trainer.callbacks+", "tests.helpers.plugins.TellToEnd"]
    told += ["--trainer.callbacks.rank", str(rank), "--trainer.callbacks.step", "3"]
    place = ["--trainer.default_root_dir", str(tiny.folder / "told")]
    command = ["-m", "lit_entrodrop", "fit", *tiny.config()]
    ended = python(*command, *two_ranks, *told, *place, cwd=CONFIGS.parent)
    # The ranks write at the same time, at times into one line.
    said = sorted(re.findall(r"rank \d ends after \d+ steps: [A-Za-z]+?(?=rank|\n)", ended.stdout))
    # Told before step 3, agreed on within it, heard within the next.
    expected = [f"rank {each} ends after 5 steps: SIGTERMException" for each in (0, 1)]
    assert said == expected, ended.stdout + ended.stderr
