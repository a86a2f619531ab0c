from benchmarks.checkpoints import checkpoints
from tests.benchmarks.helpers import rows_of


def test_verifying_is_related_to_loading(tmp_path):
    out = checkpoints(gigabytes=0.07, rounds=1, folder=str(tmp_path), out=tmp_path)
    rows = {row["case"]: row for row in rows_of(out)}
    assert rows.keys() == {"write", "load", "verify"}
    assert rows["load"]["ratio_to_load"] == 1
    assert all(row["gb_per_second"] > 0 for row in rows.values())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints.json"]
