from itertools import combinations

import pytest

from lit_entrodrop.evaluation.task.scoring import contains, exact_match, regex, rouge_l


def longest_common(one: list[str], other: list[str]) -> int:
    """Return the length of the longest common subsequence by trying all of them."""
    for size in range(len(one), 0, -1):
        if set(combinations(one, size)) & set(combinations(other, size)):
            return size
    return 0


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("the cat sat on the mat", "on the mat the black cat sat"),
        ("Über Straßen: 5 mg!", "über strassen 5 mg"),
        ("心 不全 急性", "急性 心 不全"),
        ("fever", "cough"),
        ("", "cough"),
    ],
)
def test_rouge_l_is_the_f_measure_of_common_subsequences(output: str, answer: str) -> None:
    punctuation = str.maketrans("", "", ":!")
    one, other = (text.translate(punctuation).casefold().split() for text in (output, answer))
    common = longest_common(one, other)
    expected = 2 * common / (len(one) + len(other))
    assert rouge_l(output, [answer]) == pytest.approx(expected)
    assert rouge_l(output, ["something else", answer]) == pytest.approx(expected)


def test_text_metrics_ignore_case_and_white_space_alone() -> None:
    assert exact_match("  New\n YORK ", ["new york"]) == 1
    assert exact_match("New York.", ["new york"]) == 0
    assert contains("in NEW  York.", ["boston", "new york"]) == 1
    assert contains("Newark", ["new york"]) == 0


def test_a_pattern_is_searched_for_as_it_is_written() -> None:
    assert regex("Dose: 5 mg\nonce", [r"^\d+ mg", r"(?m)^Dose: \d+ mg$"]) == 1
    assert regex("DOSE: 5 mg", [r"Dose"]) == 0


def test_pattern_of_exponential_time_scores_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_entrodrop.runtime.limits.MOST_SECONDS", 0.2)
    with pytest.warns(UserWarning, match=r"the pattern \(a\+\)\+\$ scores 0: it did not end"):
        assert regex("a" * 60 + "!", ["(a+)+$"]) == 0
