"""Technical corpora: Python's own documentation (PSF-2.0), and theorems of Metamath (CC0-1.0)."""

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from lit_entrodrop.data.corpora.base import Corpus, squeeze

METAMATH_FILE = Path("/usr/share/metamath/databases/set.mm")
_NOT_PROSE = {"site-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}
# Within expressions there are none.
_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
_THEOREM = re.compile(r"\$\(((?:(?!\$[()]).)*)\$\)\s+(\S+)\s+\$p\s+([^$]*)\$=", re.DOTALL)


def docstrings(source: str | bytes) -> list[str]:
    """List the docstrings of a Python module, its classes and functions, outermost first.

    >>> docstrings("def f(): 'Return 1.'")
    ['Return 1.']
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in _statements(_parse(source)) if isinstance(node, documented))
    return [text for node in nodes if (text := ast.get_docstring(node))]


def read_python() -> list[str]:
    """Read the interpreter's language topics, then its docstrings, one document per module."""
    root = Path(sysconfig.get_path("stdlib"))
    topics = _topics(root / "pydoc_data" / "topics.py")
    modules = ("\n\n".join(docstrings(path.read_bytes())) for path in _modules(root))
    return [document for document in (*topics, *modules) if document]


def metamath_theorems(text: str) -> list[str]:
    r"""Turn each commented theorem of a Metamath database into a document.

    A document is `label: comment`, and the statement on the next line.

    >>> metamath_theorems("$( Identity law. $)\n  id $p |- ( ph -> ph ) $= ? $.")
    ['id: Identity law.\n|- ( ph -> ph )']
    """
    theorems = _THEOREM.finditer(text)
    return [f"{match[2]}: {squeeze(match[1])}\n{squeeze(match[3])}" for match in theorems]


def read_metamath() -> list[str]:
    """Read the theorems of Metamath's set.mm, one document per theorem."""
    return metamath_theorems(METAMATH_FILE.read_text(encoding="utf-8"))


def _parse(source: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        # Old modules contain invalid escapes, which do not matter for their docstrings.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield a module and its statements level by level, as `ast.walk` does, without expressions."""
    level: list[ast.AST] = [tree]
    while level:
        yield from level
        children = (child for node in level for child in ast.iter_child_nodes(node))
        level = [each for each in children if isinstance(each, _STATEMENTS)]


def _modules(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if _NOT_PROSE.isdisjoint(path.relative_to(root).parts):
            yield path


def _topics(path: Path) -> list[str]:
    # The dictionary is assembled from literals only, so it can be read without running the module.
    nodes = ast.walk(_parse(path.read_bytes()))
    tables = [ast.literal_eval(node) for node in nodes if isinstance(node, ast.Dict)]
    return [inspect.cleandoc(text) for table in tables for text in table.values()]


FAMILY = (
    Corpus("python", "python", read_python),
    Corpus("metamath", "metamath-databases", read_metamath, installer="apt-get install"),
)
