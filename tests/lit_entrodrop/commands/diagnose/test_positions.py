import pandas as pd
import pytest

from lit_entrodrop.commands.diagnose.positions import positions


def epochs(counted: bool = True, **columns: list[float | None]) -> list[float]:
    found: list[float] = positions(pd.DataFrame(columns), counted)[0]["epoch"].tolist()
    return found


def test_passes_stay_and_counted_epochs_become_passes() -> None:
    assert epochs(False, step=[5, 10, 20], epoch=[0.5, 1, 2]) == [0.5, 1, 2]
    assert epochs(step=[5, 10, 20], epoch=[0.5, 1, 2]) == [0.5, 1, 2]
    assert epochs(step=[5, 10, 15, 20], epoch=[0, 0, 1, 1]) == [0.5, 1, 1.5, 2]


def test_the_last_epoch_may_be_incomplete_and_the_first_missing() -> None:
    assert epochs(step=[10, 20, 25], epoch=[0, 1, 2]) == [1, 2, 2.5]
    assert epochs(step=[30, 40, 50], epoch=[3, 3, 3]) == [3, 3.5, 4]


def test_missing_epochs_are_interpolated_and_unknown_ones_reported() -> None:
    assert epochs(False, step=[10, 15, 20], epoch=[1, None, 2]) == [1, 1.5, 2]
    places, notes = positions(pd.DataFrame({"step": [1, 2]}), True)
    assert places["epoch"].isna().all()
    assert "pass --steps_per_epoch" in notes[0]
    assert positions(pd.DataFrame({"step": [1, 2]}), True, 2)[0]["epoch"].tolist() == [0.5, 1]


def test_steps_within_epochs_and_missing_steps_are_counted_by_row() -> None:
    table = pd.DataFrame({"step": [0, 1, 0, 1], "epoch": [0, 0, 1, 1]})
    places, [note] = positions(table, True)
    assert note.startswith("Steps restart in each epoch")
    assert places["epoch"].tolist() == [0.5, 1, 1.5, 2]
    places, [note] = positions(pd.DataFrame({"epoch": [0, 1, 2]}), True)
    assert note.startswith("The log has no steps")
    assert places["epoch"].tolist() == pytest.approx([1, 2, 3])
