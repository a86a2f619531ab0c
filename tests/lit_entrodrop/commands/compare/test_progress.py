import io
from pathlib import Path

import pytest
from rich.console import Console

from lit_entrodrop.commands.compare.processes import Job
from lit_entrodrop.commands.compare.progress import Told


@pytest.mark.parametrize("is_terminal", [True, False])
def test_every_run_is_told(is_terminal: bool) -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=is_terminal, width=120)
    job = Job("plain seed 0", [], Path("x.log"), Path("x"), lambda: None, progress=lambda: "step 3")
    other = Job("other [x]", [], Path("y.log"), Path("y"), lambda: None)
    with Told(console, "trained", done=1, total=3) as watcher:
        watcher.on_start(job)
        watcher.on_wait(other)
        watcher.on_poll([job])
        watcher.on_end(job, 0, 12.3)
        watcher.on_end(other, 3, 0.0)
    told = said.getvalue()
    assert "plain seed 0: step 3 (12 s)" in told
    assert "other [x]: failed with status 3, see y.log (0 s)" in told
    assert "other [x]: waits for a process" in told
    assert ("3/3" in told) == is_terminal
    assert ("started" in told) == (not is_terminal)
