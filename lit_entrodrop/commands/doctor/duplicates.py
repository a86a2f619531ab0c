"""Documents that stand on two sides of a split, exactly or nearly."""

from lit_entrodrop.commands.doctor import similarity
from lit_entrodrop.commands.doctor.check import Check, failed, passed, warned
from lit_entrodrop.commands.doctor.subject import Subject
from lit_entrodrop.commands.doctor.texts import excerpt, sample, text_of

MANY = 0.01  # share of the validation documents
REMEDY = "remove them from one side: they make the validation loss look better than it is"


def near_duplicates(subject: Subject) -> Check:
    """Look for training documents that stand in validation or test too, nearly or exactly."""
    documents = subject.documents
    held_out = {name: documents[name] for name in ("validation", "test") if name in documents}
    if not held_out:
        return passed("no other split than training")
    index = subject.train_index
    statements, copies, worst = [], 0, 0.0
    for name, side in held_out.items():
        sampled = sample(side, similarity.COMPARED)
        both = len(set(documents["train"]) & set(side))
        pairs = index.pairs(sampled, f"Comparing {name}")
        near = len({pair.left for pair in pairs})
        copies, worst = copies + both, max(worst, near / len(sampled))
        statements.append(
            f"{both:,} exact and {near:,} near duplicates of training among "
            f"{_of(len(sampled), len(side))} {name} documents"
        )
        if pairs:
            pair = max(pairs, key=lambda each: each.similarity)
            statements.append(
                f"e.g. {excerpt(text_of(sampled[pair.left]))} and "
                f"{excerpt(text_of(index.documents[pair.right]))} ({pair.similarity:.2f})"
            )
    if len(index.documents) < len(documents["train"]):
        compared = _of(len(index.documents), len(documents["train"]))
        statements.append(f"compared with {compared} of training")
    found = "; ".join(statements)
    if copies or worst >= MANY:
        return failed(found, REMEDY)
    return warned(found, REMEDY) if worst else passed(found)


def train_duplicates(subject: Subject) -> Check:
    """Tell how many training documents repeat an earlier one, nearly or exactly."""
    index = subject.train_index
    repeated = len({pair.left for pair in index.own_pairs() if pair.right < pair.left})
    return passed(
        f"{repeated / len(index.documents):.1%} of "
        f"{_of(len(index.documents), len(subject.documents['train']))} training documents "
        "nearly repeat another (for information: repeated text overfits first)"
    )


def _of(sampled: int, all_: int) -> str:
    return f"{all_:,}" if sampled == all_ else f"{sampled:,} sampled of {all_:,}"
