"""Values that Lightning would accept, or fail on later without the name of the setting."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.training.preflight.ranges import check_ranges

BAD = {
    "seed_everything": [-1, 2**32, True, None],
    "trainer.devices": [-4, 0, "x", "0,0", [], [0, 0], 1.5, 100_000],
    "trainer.max_steps": [0, -2],
    "trainer.num_nodes": [0, 10**11],
    "model.lm.lora.rank": [0, 10**9],
    "trainer.limit_train_batches": [0, 0.0, 1.5, -1, float("nan")],
    "trainer.val_check_interval": [0, 0.0, -1, 1.5],
    "trainer.check_val_every_n_epoch": [0],
    "trainer.accumulate_grad_batches": [0, -2],
    "trainer.log_every_n_steps": [-1],
    "trainer.gradient_clip_val": [-1.0, float("nan"), float("inf")],
    "trainer.default_root_dir": [None, "", " ", __file__],
    "data.block_size": [1, 10**11],
    "data.cache_dir": [__file__],
    "model.lm.lora.dropout": [-0.1, 1.0],
    "model.lm.lora.loraplus_lr_ratio": [0, -1.0, float("inf")],
}
GOOD = {
    "seed_everything": [2**32 - 1],
    "trainer.devices": ["auto", 1, -1, "2", "0,1", [0, 3]],
    "trainer.max_steps": [-1, 5],
    "trainer.limit_train_batches": [1, 0.5, 1.0],
    "trainer.val_check_interval": [None, 2, 0.5, "00:10:00"],
    "trainer.check_val_every_n_epoch": [None, 1],
    "trainer.gradient_clip_val": [None, 0, 1.0],
    "trainer.default_root_dir": ["runs/new", str(Path(__file__).parent)],
}
VALID = {"seed_everything": 0, "trainer.default_root_dir": "run"}


@pytest.mark.parametrize("name", BAD)
def test_value_out_of_range_is_refused(name: str) -> None:
    for value in BAD[name]:  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got .*: correct it$"):
            check_ranges({**VALID, name: value}.get)


def test_values_in_range_are_accepted() -> None:
    for name, values in GOOD.items():
        for value in values:  # type: ignore[attr-defined]
            check_ranges({**VALID, name: value}.get)


def test_lower_bound_above_the_upper_one_is_refused() -> None:
    given = {**VALID, "trainer.min_steps": 5, "trainer.max_steps": 3}
    with pytest.raises(ValueError, match=r"min_steps: expected at most trainer\.max_steps.*got 5"):
        check_ranges(given.get)
    check_ranges({**given, "trainer.max_steps": -1}.get)


def test_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match=r"trainer\.default_root_dir: expected the path of"):
        check_ranges({**VALID, "trainer.default_root_dir": str(tmp_path / "loop")}.get)


def test_folder_that_another_rank_creates_meanwhile_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def then_created(question: Callable[[str], bool]) -> Callable[[str], bool]:
        def answer(path: str) -> bool:
            found = question(path)
            if path == str(folder):
                folder.mkdir(exist_ok=True)
            return found

        return answer

    for name in ("isdir", "lexists"):
        monkeypatch.setattr(os.path, name, then_created(getattr(os.path, name)))
    check_ranges({**VALID, "trainer.default_root_dir": str(folder)}.get)
    assert folder.exists()


def test_every_config_is_checked() -> None:
    with pytest.raises(ValueError, match=r"trainer\.accumulate_grad_batches: expected a whole"):
        resolved_config(["--trainer.accumulate_grad_batches=0"])
