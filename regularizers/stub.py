"""Write ``__init__.pyi``, which shows every exported name to type checkers and editors.

Run ``python -m regularizers.stub`` after adding a method; a test compares the file with the code.
"""

from regularizers.sources import FOLDER, exported

PATH = FOLDER / "__init__.pyi"
LINE_LENGTH = 100


def stub() -> str:
    """Return the text of the stub.

    >>> "from regularizers.z_loss import ZLoss as ZLoss" in stub()
    True
    """
    names = sorted((module, name) for name, module in exported().items())
    imports = [_import(module, name) for module, name in names]
    return "\n".join(["# Written by `python -m regularizers.stub`.", "", *imports, ""])


def _import(module: str, name: str) -> str:
    line = f"from regularizers.{module} import {name} as {name}"
    if len(line) <= LINE_LENGTH:
        return line
    return f"from regularizers.{module} import (\n    {name} as {name},\n)"


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
    print(f"stub: {PATH}")
