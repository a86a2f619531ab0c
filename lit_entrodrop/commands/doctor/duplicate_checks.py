"""Checks for duplicates: across splits, and within the training split."""

from lit_entrodrop.commands.doctor import near_duplicates as index
from lit_entrodrop.commands.doctor.check import CheckResult, failed, passed, warned
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.document_text import excerpt, sample, text_of

MANY = 0.01  # share of the documents of a split
REMEDY = "remove the copies from one of the splits: they make the loss look better than on new text"


def near_duplicates(run: ConfiguredRun) -> CheckResult:
    """Look for training documents that are also in validation or test, nearly or exactly."""
    documents = run.documents
    held_out = {name: documents[name] for name in ("validation", "test") if name in documents}
    if not held_out:
        return passed("there is no split besides training")
    train = run.train_index
    statements, copies, worst = [], 0, 0.0
    for name, split in held_out.items():
        sampled = sample(split, index.COMPARED)
        exact = len(set(documents["train"]) & set(split))
        pairs = train.query(sampled, f"Comparing {name}")
        near = len({pair.queried for pair in pairs})
        copies, worst = copies + exact, max(worst, near / len(sampled))
        statements.append(
            f"{exact:,} exact and {near:,} near duplicates of training documents among "
            f"{_count(len(sampled), len(split))} {name} documents"
        )
        if pairs:
            pair = max(pairs, key=lambda each: each.similarity)
            statements.append(
                f"e.g. {excerpt(text_of(sampled[pair.queried]))} and "
                f"{excerpt(text_of(train.documents[pair.indexed]))} ({pair.similarity:.2f})"
            )
    if len(train.documents) < len(documents["train"]):
        compared = _count(len(train.documents), len(documents["train"]))
        statements.append(f"compared with {compared} training documents")
    found = "; ".join(statements)
    if copies or worst >= MANY:
        return failed(found, REMEDY)
    return warned(found, REMEDY) if worst else passed(found)


def train_duplicates(run: ConfiguredRun) -> CheckResult:
    """Count the training documents that repeat an earlier one, nearly or exactly."""
    train = run.train_index
    repeated = len({pair.queried for pair in train.query_itself() if pair.indexed < pair.queried})
    return passed(
        f"{repeated / len(train.documents):.1%} of "
        f"{_count(len(train.documents), len(run.documents['train']))} training documents "
        "nearly repeat another one (for information: repeated text overfits first)"
    )


def _count(sampled: int, all_: int) -> str:
    return f"{all_:,}" if sampled == all_ else f"{sampled:,} sampled of {all_:,}"
