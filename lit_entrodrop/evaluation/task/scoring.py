"""Scores of an output, given the right answers."""

import re
from collections.abc import Callable, Sequence

from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.evaluation.task.settings import TaskMetric
from lit_entrodrop.runtime.limits import limited


def normalized(text: str) -> str:
    r"""Return a text without case and with single spaces between words.

    >>> normalized(" New  YORK\n")
    'new york'
    """
    return " ".join(text.casefold().split())


def exact_match(output: str, answers: Sequence[str]) -> float:
    r"""Return 1 if the normalized output is one of the normalized answers, else 0.

    >>> exact_match(" paris\n", ["Paris", "Paris, France"])
    1.0
    """
    return float(normalized(output) in map(normalized, answers))


def contains(output: str, answers: Sequence[str]) -> float:
    """Return 1 if the normalized output contains one of the normalized answers, else 0.

    >>> contains("It is Paris.", ["paris"])
    1.0
    """
    return float(any(normalized(answer) in normalized(output) for answer in answers))


def regex(output: str, answers: Sequence[str]) -> float:
    r"""Return 1 if one of the answers, a pattern of :mod:`re`, is found in the output, else 0.

    A pattern that takes seconds scores 0, with a warning.

    >>> regex("The dose is 5 mg.", [r"\b5 ?mg\b"])
    1.0
    """
    try:
        with limited("Simplify it: nested repetitions, such as (a+)+, take exponential time."):
            return float(any(re.search(answer, output) for answer in answers))
    except TimeoutError as error:
        rank_zero_warn(f"monitors.task: the pattern {' or '.join(answers)} scores 0: {error}")
        return 0.0


def choice(output: str, answers: Sequence[str]) -> float:
    """Return 1 if the most likely choice is a right one, else 0."""
    return float(output in answers)


def rouge_l(output: str, answers: Sequence[str]) -> float:
    """Return the highest ROUGE-L F-measure of the output and one of the answers, in [0, 1].

    Words are runs of letters, digits and underscores of any alphabet, without case or stemming.

    Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3.1, β = 1.

    >>> round(rouge_l("the cat sat", ["the cat lay down"]), 3)
    0.571
    """
    from torchmetrics.functional.text import rouge_score

    found = rouge_score(
        output,
        [list(answers)],
        accumulate="best",
        normalizer=str.casefold,
        tokenizer=re.compile(r"\w+").findall,
        rouge_keys="rougeL",
    )
    return float(found["rougeL_fmeasure"])


SCORES: dict[TaskMetric, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "contains": contains,
    "regex": regex,
    "choice": choice,
    "rouge_l": rouge_l,
}
