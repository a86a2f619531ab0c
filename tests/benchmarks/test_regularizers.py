import pytest

from benchmarks import regularizers as benchmark
from benchmarks.live_fit import llama
from regularizers import EmbeddingDropout, Regularizer, Requirements
from tests.benchmarks.helpers import rows_of

MIB = 2**20


class TwoPasses(EmbeddingDropout):
    @property
    def requirements(self):
        return Requirements(dropout=True)


class Picky(Regularizer):
    def check(self, vocabulary, others):
        raise ValueError("no such vocabulary")


def test_each_is_divided_by_the_plain_step_of_its_model(tmp_path, monkeypatch):
    own = {"EmbeddingDropout": EmbeddingDropout, "TwoPasses": TwoPasses, "Picky": Picky}
    monkeypatch.setattr(benchmark, "own_regularizers", lambda: own)
    monkeypatch.setitem(benchmark.MODELS, "tiny", llama(4096, hidden_size=32, layers=1))
    # A fresh process imports all libraries; test_memory shows that they work.
    mebibytes = {"plain": 5, "EmbeddingDropout": 7, "TwoPasses": 6}
    monkeypatch.setattr(
        benchmark, "extra_memory", lambda train, lm, name, *others, **setup: mebibytes[name] * MIB
    )
    rows = rows_of(
        benchmark.regularizers(
            2,
            out=str(tmp_path),
            block_size=32,
            batch_size=2,
            models=["tiny"],
            memory_of=["tiny"],
        )
    )
    assert [(row["case"], row["dropout"]) for row in rows] == [
        ("plain", 0.0),
        ("EmbeddingDropout", 0.0),
        ("Picky", 0.0),
        ("plain", 0.1),
        ("TwoPasses", 0.1),
    ]
    assert [row["ratio"] for row in rows if row["case"] == "plain"] == [1, 1]
    assert {"model", "ms", "ms_iqr", "ratio", "ratio_iqr", "rounds"} <= rows[1].keys()
    assert [row.get("extra_mib") for row in rows] == [0, 2, None, 0, 1]
    assert rows[2]["refused"] == "no such vocabulary"


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match=r"only: expected some of .*EntroDrop.*, got Entrodrop"):
        benchmark.chosen(["Entrodrop"])
