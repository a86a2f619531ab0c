"""What the folder of a run says about how it was trained."""

from pathlib import Path
from typing import Any

from lit_entrodrop.runs.evaluations import read_run_info

# Packages whose versions can change the numbers of a run.
PACKAGES = ("lit-entrodrop", "torch")


def read_info(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.json``, empty if it cannot be read."""
    try:
        return read_run_info(folder)
    except ValueError:
        return {}


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hash of each split that a run was trained or evaluated on, by name."""
    found = read_info(folder).get("fingerprints")
    return {name: str(found[name]) for name in found} if isinstance(found, dict) else {}


def origin(folder: Path) -> dict[str, str]:
    """Return the device of a run and the versions of the packages that trained it, by name."""
    info = read_info(folder)
    found = info.get("provenance")
    versions = found.get("versions") if isinstance(found, dict) else None
    known = {**(versions if isinstance(versions, dict) else {}), "device": info.get("device")}
    return {name: str(known[name]) for name in (*PACKAGES, "device") if known.get(name)}
