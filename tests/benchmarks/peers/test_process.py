import sys
from pathlib import Path

import pytest

from benchmarks.peers.process import Worker


def test_a_process_that_fails_shows_its_log(tmp_path: Path) -> None:
    worker = Worker(tmp_path, [sys.executable, "-c", "raise OSError('no disk')"], threads=1)
    with pytest.raises(RuntimeError, match="no disk"):
        worker.ready()
    worker.close()
