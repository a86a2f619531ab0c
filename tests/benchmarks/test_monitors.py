from benchmarks.monitors import discarded_output, monitors
from lit_entrodrop.runtime.progress import can_draw
from tests.benchmarks.helpers import rows_of


def test_monitors_are_compared_with_none(tmp_path):
    path = monitors(
        rounds=2,
        steps=2,
        hidden_size=32,
        layers=1,
        block_size=16,
        log_every_n_steps=2,
        out=tmp_path,
    )
    without, with_monitors = rows_of(path)
    assert without["added_percent"] == 0
    assert with_monitors["case"] == "with monitors"
    assert with_monitors["rounds"] == 2


def test_bar_is_drawn_though_nobody_sees_it():
    with discarded_output():
        assert can_draw()
