from dataclasses import replace

from lit_entrodrop.evaluation.diagnosis import OverfittingVerdict
from lit_entrodrop.evaluation.diagnosis.epoch_drops import EpochDrops
from lit_entrodrop.evaluation.diagnosis.explanation import explain, tokens_of

HOLDS = OverfittingVerdict("holds", 3, 2.0, (3, 3), None, 0.0, (0.0, 0.0), 0.0, -0.1)
OVERFITS = OverfittingVerdict("overfits", 2, 2.0, (2, 2), 3, 0.2, (0.1, 0.3), 0.999, -0.4)


def test_what_overfits_and_what_does_not_is_explained() -> None:
    verdicts = {"all": OVERFITS, "low": HOLDS, "high": replace(OVERFITS, rise=0.4)}
    found = explain(verdicts, "high", 3, regularized=False)
    assert found.headline == "The model overfits from epoch 3"
    first, second, spared, advice = found.sentences
    assert first.startswith("The model overfits from epoch 3: its validation loss has risen by")
    assert second.startswith("High-entropy tokens overfit most, from epoch 3: their validation")
    assert spared == "Low-entropy tokens do not overfit so far."
    assert "after epoch 2), train for 2 epochs (--trainer.max_epochs 2), or train with" in advice


def test_a_bucket_alone_is_no_reason_to_stop() -> None:
    verdicts = {"all": HOLDS, "low": HOLDS, "high": OVERFITS}
    found = explain(verdicts, "high", 3, regularized=True)
    assert found.headline == (
        "High-entropy tokens overfit from epoch 3, all tokens together do not"
    )
    assert found.evidence[0].startswith("Their validation loss has risen by 0.200")
    assert found.advice == (
        "All tokens together do not overfit; to protect this bucket, train again with a stronger "
        "regularizer."
    )


def test_no_overfitting_is_not_called_a_proof() -> None:
    found = explain({"all": HOLDS}, None, 3, regularized=False)
    assert found.sentences == [
        "No overfitting shown up to epoch 3: the validation loss is at its lowest, 2.000 nats per "
        "token."
    ]
    slight = replace(HOLDS, rise=0.01)
    [sentence] = explain({"all": slight}, None, 3, regularized=False).evidence
    assert sentence.endswith("too small or too uncertain to count.")


def test_one_evaluation_is_too_little() -> None:
    unknown = replace(HOLDS, kind="unknown")
    sentence, *advice = explain({"all": unknown}, None, 0, regularized=False).sentences
    assert sentence.startswith("Too little data to judge whether the model overfits: at least two")
    assert "raise data.validation" in " ".join(advice)


def test_a_model_that_only_gets_worse_is_no_case_for_fewer_epochs() -> None:
    worse = replace(OVERFITS, best_epoch=0, onset_epoch=1)
    advice = explain({"all": worse}, None, 3, regularized=False).advice
    assert "before training has a lower loss" in advice
    assert "best.ckpt" not in advice


def test_steep_drops_between_epochs_are_evidence() -> None:
    steep, slight = EpochDrops([0.2, 0.4], 0.01, 0.3), EpochDrops([0.01], 0.001, 0.3)
    evidence = explain({"all": OVERFITS}, None, 3, False, steep).evidence
    assert "drops by 0.300 more than its slope explains" in evidence[1]
    assert len(explain({"all": OVERFITS}, None, 3, False, slight).evidence) == len(evidence) - 1


def test_divergence_is_the_only_finding() -> None:
    diverges = replace(OVERFITS, kind="diverges", onset_epoch=None, clean_train_change=0.3)
    found = explain({"all": diverges, "low": HOLDS}, None, 3, False)
    assert found.headline == "Training diverges after epoch 2"
    assert found.advice == "Lower the learning rate, or lengthen its warm-up."
    assert len(found.evidence) == 1


def test_buckets_are_named() -> None:
    assert tokens_of("low", "mid", "high") == "Low-, mid- and high-entropy tokens"
    assert tokens_of("bucket_1", "bucket_3") == "Tokens of buckets 1 and 3"
