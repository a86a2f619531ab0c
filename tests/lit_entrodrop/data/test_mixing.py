from typing import Any

import pytest

from lit_entrodrop.data.mixing import Replay, WeightedSource, sources_of, weights_of


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"data.replay.share: .* at least 0 and below 1, got"):
        Replay("general.txt", share=share)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match=r"data.corpus: expected a weight above 0 for a.txt"):
        WeightedSource("a.txt", weight)


@pytest.mark.parametrize(
    "corpus",
    [
        [{"source": "a/notes.txt"}, "b/notes.jsonl"],
        [{"source": "replay.txt"}],
        [{"source": "a.txt"}, {"source": "b.txt", "name": "a"}],
    ],
)
def test_names_are_distinct(corpus: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"data.corpus: expected a distinct name .* add `name: …`"):
        weights_of(corpus)


@pytest.mark.parametrize("name", ["../a", "a\nb", "a" * 201, 3])
def test_name_is_one_of_a_metric(name: Any) -> None:
    with pytest.raises(ValueError, match=r"data.corpus: expected a name of at most 200 characters"):
        weights_of([{"source": "a.txt", "name": name}])


def test_corpus_has_a_source() -> None:
    with pytest.raises(ValueError, match=r"data.corpus: expected at least one source"):
        sources_of([])


def test_sources_without_weight_have_weight_1_beside_others() -> None:
    corpus = [
        "a.txt",
        {"source": "hub:org/notes", "weight": 0.5},
        {"source": "c.md", "name": "last"},
    ]
    assert weights_of(corpus) == {"a": 1.0, "notes": 0.5, "last": 1.0}


@pytest.mark.parametrize("source", [{"weight": 2.0}, {"source": "a.txt", "weights": 2.0}])
def test_source_that_cannot_be_read_is_shown(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"data.corpus: expected a source, or .*, got .*weight"):
        weights_of([source])
