from pathlib import Path
from threading import Timer

import pytest

from lit_entrodrop.runs import layout
from lit_entrodrop.runs.layout import LOCK, holds_run, lock_run
from lit_entrodrop.runs.locking import Lock, lock


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """Lock a folder as a process of another host does."""
    monkeypatch.setattr(layout, "POLL_SECONDS", 0.05)
    locked = lock(tmp_path / LOCK)
    assert locked is not None
    (tmp_path / LOCK).write_text("node-7 12\n")
    return locked


def test_lock_of_a_host_that_fails_is_waited_for(tmp_path: Path, elsewhere: Lock) -> None:
    Timer(0.2, elsewhere.release).start()
    lock_run(tmp_path).release()


def test_lock_of_a_host_that_works_is_refused(
    tmp_path: Path, elsewhere: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LEASE_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"nothing trains, got .*: process 12 on node-7 uses it"):
        lock_run(tmp_path)


def test_a_run_has_a_checkpoint_unless_its_config_disables_them(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").touch()
    (tmp_path / "config.yaml").write_text("trainer: {enable_checkpointing: null}")
    assert not holds_run(tmp_path)
    (tmp_path / "config.yaml").write_text("trainer: null")
    assert not holds_run(tmp_path)
    (tmp_path / "config.yaml").write_text("trainer: {enable_checkpointing: false}")
    assert holds_run(tmp_path)
    (tmp_path / "config.yaml").write_text("damaged: [")
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step=5.ckpt").touch()
    assert holds_run(tmp_path)
