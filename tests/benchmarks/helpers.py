import json
from pathlib import Path


def rows_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"]
