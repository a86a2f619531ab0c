"""File formats of a corpus, one module each.

To add a format, add a module with `SUFFIXES` and `read_records`, as `FileFormat` describes, and its
test. The module is found by its presence; error messages and the help text list its suffixes.
"""

from collections.abc import Iterator
from functools import cache

from lit_entrodrop.data.discovery import modules_with
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.file_formats.base import CorpusFile, FileFormat, Record
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row

__all__ = ["CorpusFile", "FileFormat", "Record", "read_file", "supported_formats"]


@cache
def supported_formats() -> dict[str, FileFormat]:
    """Return the file formats by suffix, sorted by suffix.

    >>> sorted({".csv", ".jsonl", ".docx"} & set(supported_formats()))
    ['.csv', '.jsonl']
    """
    formats = modules_with("read_records", __name__, __path__)
    return dict(sorted((suffix, module) for module in formats for suffix in module.SUFFIXES))


def read_file(file: CorpusFile) -> Iterator[Document]:
    """Read the documents of one file in order."""
    record = None
    for record in _read_records(file):
        yield _document(record, file.options)
    if record is None:
        raise ValueError(
            f"{file.path} is empty: it contains no document. Remove the file or fill it."
        )


def _read_records(file: CorpusFile) -> Iterator[Record]:
    """Read the records of one file; an error of a damaged file or disk names the file."""
    try:
        yield from supported_formats()[file.suffix].read_records(file)
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # It names the file, as that of a file without permission.
        raise ValueError(
            f"{file.path}: expected a file without damage, got: {error}. Copy or write it again."
        ) from error


def _document(record: Record, options: ReadingOptions) -> Document:
    if isinstance(record.content, str):
        return Document("text", record.content, record.where)
    return document_from_row(record.content, options, record.where)
