"""Files in each format, and what they contain."""

from pathlib import Path

import pytest

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats import CorpusFile, read_file

ROWS = [{"text": 'One, "two"\nlines\u2028here.'}, {"text": "Zweitens: größer."}]
DOCUMENTS = [Document("text", row["text"]) for row in ROWS]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refuse(path: Path, named: list[str]) -> None:
    """Check that reading a file raises an error with all of the named parts."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        list(read_file(CorpusFile(path)))
    assert all(part in str(caught.value) for part in named), caught.value
