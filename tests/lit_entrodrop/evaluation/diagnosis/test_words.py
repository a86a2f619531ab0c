from dataclasses import replace

from lit_entrodrop.evaluation.diagnosis import Verdict
from lit_entrodrop.evaluation.diagnosis.words import in_words, tokens_of

HOLDS = Verdict("holds", 3, 2.0, (3, 3), None, 0.0, (0.0, 0.0), 0.0, -0.1)
OVERFITS = Verdict("overfits", 2, 2.0, (2, 2), 3, 0.2, (0.1, 0.3), 0.999, -0.4)


def test_what_overfits_and_what_does_not_is_told() -> None:
    verdicts = {"all": OVERFITS, "low": HOLDS, "high": replace(OVERFITS, rise=0.4)}
    first, second, spared, advice = in_words(verdicts, "high", 3, regularized=False)
    assert first.startswith("The model overfits from epoch 3 on: its validation loss has risen by")
    assert second.startswith("High-entropy tokens overfit most, from epoch 3 on: their validation")
    assert spared == "Low-entropy tokens do not, so far."
    assert "after epoch 2), train for 2 epochs (--trainer.max_epochs 2), or train under" in advice


def test_a_bucket_alone_is_no_reason_to_stop() -> None:
    verdicts = {"all": HOLDS, "low": HOLDS, "high": OVERFITS}
    *_, advice = in_words(verdicts, "high", 3, regularized=True)
    assert advice == (
        "All tokens together hold; to spare these, train again with a stronger regularizer."
    )


def test_a_model_that_only_gets_worse_is_no_case_for_fewer_epochs() -> None:
    worse = replace(OVERFITS, best_epoch=0, onset_epoch=1)
    *_, advice = in_words({"all": worse}, None, 3, regularized=False)
    assert "before training does better" in advice
    assert "best.ckpt" not in advice


def test_stairs_are_told_if_they_are_steep() -> None:
    told = in_words({"all": OVERFITS}, None, 3, False, [0.2, 0.4])
    assert "falls by 0.300 beyond its slope" in told[1]
    assert len(in_words({"all": OVERFITS}, None, 3, False, [0.01])) == len(told) - 1


def test_divergence_is_told_by_itself() -> None:
    diverges = replace(OVERFITS, kind="diverges", onset_epoch=None, clean_train_change=0.3)
    [told] = in_words({"all": diverges, "low": HOLDS}, None, 3, False)
    assert told.startswith("Training diverges")


def test_buckets_are_named() -> None:
    assert tokens_of("low", "mid", "high") == "Low-, mid- and high-entropy tokens"
    assert tokens_of("bucket_1", "bucket_3") == "Tokens of buckets 1 and 3"
