"""The notebook runs from the first cell to the last, on a CPU."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.tiny import CONFIGS

NOTEBOOK = CONFIGS.parent / "examples" / "fine_tune_your_text.ipynb"
SMALL = """
CORPUS, TOKENS, EPOCHS = "notes.jsonl", 2_000, 1
"""
NOTES = [{"text": f"Case {n}: a disease of the heart in {n % 41} patients."} for n in range(400)]


def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    [parameters] = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    ]
    parameters.source += SMALL
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, NOTES)))
    # The commands are those of this interpreter, on this checkout.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    table, page = (
        output.data["text/html"] for output in outputs if output.output_type == "execute_result"
    )
    assert all(arm in table for arm in ("plain", "entrodrop", "random", "95 % interval"))
    assert "srcdoc" in page
    assert any("A rare disease of the" in output.get("text", "") for output in outputs)
