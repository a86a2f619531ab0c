import re
from pathlib import Path

import pytest

from benchmarks.gpu_campaign.campaign import campaign
from benchmarks.gpu_campaign.rows import RowFile, read_rows


def test_rows_of_a_rehearsal_do_not_mix_with_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowFile(path, {"rehearsal": True}).append({"step": "a"})
    assert read_rows(path) == [{"step": "a", "rehearsal": True}]
    RowFile(path, {"rehearsal": True})
    with pytest.raises(ValueError, match="out: expected a file with rows of campaigns on a GPU"):
        RowFile(path, {"rehearsal": False})


def test_cut_off_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": "a"}\n{"st')
    with pytest.raises(ValueError, match=re.escape(f"in each line of {path}, got something else")):
        read_rows(path)


def test_pattern_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only: expected patterns of"):
        campaign(rehearse=True, out=str(tmp_path / "rows.jsonl"), only=["zz*"])
    assert not list(tmp_path.glob("*.jsonl"))
