import json

from benchmarks.overhead import overhead
from tests.benchmarks.helpers import rows_of


def test_loops_do_the_same(tmp_path):
    path = overhead(rounds=2, steps=3, hidden_size=32, block_size=16, out=str(tmp_path))
    rows = rows_of(path)
    assert [row["case"] for row in rows][0::3] == ["bare loop", "plain"]
    assert {"ms", "over_bare_ms", "over_bare_ms_iqr", "over_arm_before_ms"} <= rows[0].keys()
    assert json.loads(path.read_text())["settings"]["weights_differ_by"] < 1e-5
