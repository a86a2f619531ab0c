from benchmarks.monitors import drawn_to_nowhere, monitors
from lit_entrodrop.training.callbacks.progress_bar import has_terminal
from tests.benchmarks.helpers import rows_of


def test_watching_is_compared_with_not_watching(tmp_path):
    path = monitors(
        rounds=2,
        steps=2,
        hidden_size=32,
        layers=1,
        block_size=16,
        log_every_n_steps=2,
        out=tmp_path,
    )
    unwatched, watched = rows_of(path)
    assert unwatched["added_percent"] == 0
    assert watched["case"] == "watched"
    assert watched["rounds"] == 2


def test_bar_is_drawn_though_nobody_sees_it():
    with drawn_to_nowhere():
        assert has_terminal()
