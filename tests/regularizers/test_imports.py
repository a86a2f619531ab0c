"""Time and imported modules of ``import regularizers``, in a new interpreter."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import regularizers

PROBE = """
import json, sys
import regularizers
at_first = set(sys.modules)
import torch
before = set(sys.modules)
regularizers.EntroDrop
print(json.dumps([sorted(at_first), sorted(set(sys.modules) - before)]))
"""


def newly_imported() -> tuple[list[str], list[str]]:
    """Return all modules after `import regularizers`, and those that a class then adds to torch."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    at_first, added = json.loads(done.stdout)
    return at_first, added


def test_import_loads_no_torch_and_a_class_needs_nothing_else() -> None:
    at_first, modules = newly_imported()
    assert "torch" not in at_first
    assert "regularizers.entrodrop" in modules
    assert "regularizers.focal" not in modules
    roots = {module.partition(".")[0] for module in modules}
    foreign = roots - {"regularizers"} - set(sys.stdlib_module_names)
    assert not foreign
    own = [module for module in modules if module.startswith("regularizers")]
    assert len(modules) - len(own) <= 10, "more of the standard library than torch loads"


def test_plug_ins_never_reach_for_the_layers_above() -> None:
    probe = (
        "import importlib, pkgutil, sys, regularizers\n"
        "for each in pkgutil.iter_modules(regularizers.__path__, 'regularizers.'):\n"
        "    if each.name == 'regularizers.integrations':\n"
        "        continue  # inside the trainers of others\n"
        "    importlib.import_module(each.name)\n"
        "above = {'lightning', 'pytorch_lightning', 'transformers', 'lit_entrodrop', 'datasets'}\n"
        "print(sorted(above & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def imported_roots(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)


def test_integrations_import_the_trainers_they_extend_alone() -> None:
    folder = Path(regularizers.__file__).parent / "integrations"
    found = {root for path in folder.glob("*.py") for root in imported_roots(path)}
    trainers = {"accelerate", "axolotl", "pydantic", "transformers"}
    assert found - set(sys.stdlib_module_names) == {"regularizers", "torch", *trainers}


WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
from regularizers.testing import ToyLM, make_step, training_loss
try:
    from regularizers.testing import RegularizerContract
except ImportError as error:
    print(error)
"""


def test_only_the_contract_needs_pytest() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTEST], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "regularizers.testing.contract needs pytest: pip install pytest\n"
