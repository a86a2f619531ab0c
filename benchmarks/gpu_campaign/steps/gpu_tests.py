"""Tests that need a GPU, in one call of pytest."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from benchmarks.gpu_campaign.cases import Row
from benchmarks.harness import ROOT


def run_tests(files: Sequence[str], selected: str, workers: int) -> Iterator[Row]:
    """Run tests, and yield their numbers, and the messages of those that fail.

    Args:
        files: Files and folders of tests.
        selected: Expression that selects tests by name, as for ``pytest -k``.
        workers: Number of processes of pytest-xdist; 0 for none.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", "-o", "timeout=60", f"--junitxml={report}"]
        spread = ["-n", str(workers), "--dist", "worksteal"] if workers else []
        command = [sys.executable, "-m", "pytest", *options, *spread, "-k", selected, *files]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():
            raise RuntimeError(f"pytest ended with status {status} and wrote no report")
        yield {"pytest_status": status, **read_report(report)}


def read_report(path: Path) -> Row:
    """Return the numbers of tests in a report of JUnit's format, and the messages of failures."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    found = {kind: [c for c in cases if c.find(kind) is not None] for kind in ("failure", "error")}
    broken = [*found["failure"], *found["error"]]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "tests": len(cases),
        "passed": len(cases) - len(broken) - skipped,
        "skipped": skipped,
        "failed": len(broken),
        "failures": [
            f"{case.get('classname')}::{case.get('name')}: {_cause(case)}" for case in broken
        ],
    }


def _cause(case: ElementTree.Element) -> str:
    causes = [case.find(kind) for kind in ("failure", "error")]
    return next(cause.get("message", "")[:400] for cause in causes if cause is not None)
