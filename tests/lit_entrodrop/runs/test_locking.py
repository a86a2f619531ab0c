import errno
import fcntl
import os
import signal
import time
from pathlib import Path
from platform import node

import pytest

from lit_entrodrop.runs.locking import describe_owner, lock, owner_of
from tests.helpers.processes import fork


def hold(path: Path) -> None:
    """Lock a file, and fork a child that outlives this process."""
    assert lock(path) is not None
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
    path.with_name("held").touch()
    time.sleep(60)


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_second_lock_is_refused_and_names_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    locked = lock(path)
    assert locked is not None
    assert lock(path) is None
    expected = f"process {os.getpid()} on {node()} uses it: wait until that ends"
    assert describe_owner(path).startswith(expected)
    locked.release()
    assert not path.exists()
    assert lock(path) is not None


def test_lock_ends_with_a_killed_process_before_its_children(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner = fork(hold, path)
    while not (tmp_path / "held").exists():
        assert owner.is_alive()
        time.sleep(0.01)
    assert lock(path) is None
    assert owner_of(path) == (node(), owner.pid)
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    # Unlike `join`, this does not wait for its child.
    os.waitpid(owner.pid, 0)
    # The child still runs, as workers that load data would for some seconds.
    assert lock(path) is not None
    assert owner_of(path) == (node(), os.getpid())


def test_owner_on_another_host_that_left_the_file_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("node-7 12\n")
    with pytest.warns(UserWarning, match="process 12 on node-7 ended without removing lock"):
        assert lock(path) is not None


def test_without_locks_the_text_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "lock"
    ended = fork(os.getpid)
    ended.join(30)
    path.write_text(f"{node()} {ended.pid}\n")
    locked = lock(path)
    assert locked is not None
    assert lock(path) is None
    locked.release()
    path.write_text("node-7 12\n")
    assert lock(path) is None
    assert describe_owner(path).endswith(f"if no such process runs, remove {path}")
