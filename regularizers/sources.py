"""Classes and entry points of regularizers, found without importing PyTorch.

The regularizers of this package are read from its source files, those of other packages from the
metadata of their distributions. Nothing is imported until a class is requested.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

GROUP = "lit_entrodrop.regularizers"
FOLDER = Path(__file__).parent
BASE = "Regularizer"
# Names that `regularizers` exports in addition to its methods, by file.
FRAMEWORK = {
    "adaptive": ("Adaptive",),
    "base": ("Regularizer", "Requirements"),
    "compose": ("Regularizers", "perturbed_embeddings"),
    "curricula": ("Constant", "Cosine", "Curriculum", "Linear", "Sigmoid", "Step"),
    "outputs": ("Outputs", "TokenLoss"),
    "parameters": ("ParameterPart",),
    "training_step": ("TrainingStep", "Vocabulary"),
}


@dataclass(frozen=True)
class Method:
    """A regularizer of this package, as its source file describes it.

    Args:
        name: Name of the class.
        module: Name of the file, without its ending.
        docstring: Docstring of the class.
        hooks: Hooks that the class or its bases override.
    """

    name: str
    module: str
    docstring: str
    hooks: frozenset[str]


@cache
def methods() -> dict[str, Method]:
    """Return the regularizers of this package by name, in alphabetical order.

    These are the subclasses of :class:`~regularizers.base.Regularizer` whose arguments all have
    defaults; a class that requires an argument is a base of others.

    >>> methods()["EntroDrop"].module
    'entrodrop'
    """
    classes = {
        node.name: (path.stem, node)
        for path in sorted(FOLDER.glob("*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for name, (module, node) in classes.items():
        lineage = list(_lineage(name, {each: node for each, (_, node) in classes.items()}))
        if name != BASE and lineage[-1].name == BASE and _is_complete(lineage):
            hooks = {each for parent in lineage[:-1] for each in _functions(parent)}
            found[name] = Method(
                name,
                module,
                ast.get_docstring(node, clean=False) or "",
                frozenset(each for each in hooks if each.startswith("on_")),
            )
    return dict(sorted(found.items()))


def exported() -> dict[str, str]:
    """Return all names that ``regularizers`` exports, each with the file that defines it.

    >>> exported()["Curriculum"], exported()["ZLoss"]
    ('curricula', 'z_loss')
    """
    framework = {name: module for module, names in FRAMEWORK.items() for name in names}
    return framework | {name: method.module for name, method in methods().items()}


def announcements() -> list[tuple[EntryPoint, str | None]]:
    """Return the entry points of other packages, each with its problem or None.

    The group is ``lit_entrodrop.regularizers``, and an entry point has the name of its class:
    ``LossTruncation = "acme.loss_truncation:LossTruncation"``.
    """
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, package_of(entry)))
    owners = defaultdict(list, {name: ["lit-entrodrop"] for name in methods()})
    for entry in entries:
        owners[entry.name].append(package_of(entry))
    return [(entry, _problem(entry, owners[entry.name])) for entry in entries]


def package_of(entry: EntryPoint) -> str:
    """Return name and version of the distribution that announces an entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"


def docstring_of(entry: EntryPoint) -> str:
    """Read the docstring of an announced class; empty if its source file is not found."""
    module, _, name = entry.value.partition(":")
    path = entry.dist and Path(str(entry.dist.locate_file(f"{module.replace('.', '/')}.py")))
    try:
        body = ast.parse(path.read_text("utf-8")).body if path else []
    except (OSError, SyntaxError, ValueError):
        return ""
    classes = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    return next((ast.get_docstring(node, clean=False) or "" for node in classes), "")


def _problem(entry: EntryPoint, owners: list[str]) -> str | None:
    announced = f"{package_of(entry)} announces {entry.name} = {entry.value!r}"
    module, _, name = entry.value.partition(":")
    if name != entry.name:
        return (
            f"{announced}: expected the name of its class, as in Name = 'package.module:Name': "
            "ask its author to rename it; until then configs may name it by its full class path"
        )
    if len(owners) > 1:
        return (
            f"{announced}: expected a name of its own, got one of {' and '.join(owners)}: "
            f"configs may name it {module}.{name}"
        )
    return None


def _lineage(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield a class and its bases, as far as they are defined in this package."""
    if name in classes:
        yield classes[name]
        for base in classes[name].bases:
            if isinstance(base, ast.Name):
                yield from _lineage(base.id, classes)


def _functions(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def _is_complete(lineage: list[ast.ClassDef]) -> bool:
    for node in lineage[:-1]:
        if "__init__" in _functions(node):
            arguments = _functions(node)["__init__"].args
            named = [*arguments.posonlyargs, *arguments.args]
            # The first argument is self.
            return len(named) - 1 <= len(arguments.defaults) and None not in arguments.kw_defaults
    return True
