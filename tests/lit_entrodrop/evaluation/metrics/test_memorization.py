import pytest
import torch

from lit_entrodrop.evaluation.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.training.optim import AdamW
from regularizers.functional import IGNORE_INDEX, predicted_labels
from tests.helpers.tiny import LLAMA, Tiny

PROBE = MemorizationProbe(prompt_tokens=4, match_tokens=3)


def test_it_is_the_share_that_greedy_decoding_continues(tiny: Tiny) -> None:
    """Against Transformers' own generation, document by document."""
    module = tiny.module(
        lm={"architecture": {**LLAMA, "hidden_size": 64}},
        optimizer=lambda params: AdamW(params, lr=0.02),
    )
    data = tiny.data(validation=0.6, batch_size=64)
    tiny.trainer(max_epochs=22).fit(module, datamodule=data)
    [batch] = data.ordered_dataloader("train")
    outputs = score_clean(module.causal_lm, batch)
    valid = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
    memorization = Memorization(PROBE)
    memorization.update(outputs.correct, valid, batch["position_ids"], batch["document_ids"])

    model, expected = module.causal_lm.unwrapped.eval(), []
    for ids, documents in zip(batch["input_ids"], batch["document_ids"], strict=True):
        for document in range(int(documents.max()) + 1):
            text = ids[documents == document]
            if len(text) >= 7:
                decoded = model.generate(text[None, :4], max_new_tokens=3, do_sample=False)
                expected.append(torch.equal(decoded[0, :7], text[:7]))
    assert 0 < sum(expected) < len(expected)
    assert memorization.documents == len(expected)
    assert memorization.compute().item() == pytest.approx(sum(expected) / len(expected))


def test_documents_of_which_a_token_does_not_count_are_left_out() -> None:
    memorization = Memorization(PROBE)
    position = torch.arange(8)[None].expand(2, 8)
    every = torch.ones(2, 8, dtype=torch.bool)
    valid = every.clone()
    valid[1, 5] = False
    memorization.update(every, valid, position, torch.zeros(2, 8, dtype=torch.int64))
    assert (memorization.documents.item(), memorization.memorized.item()) == (1, 1)


def test_no_document_is_long_enough() -> None:
    memorization = Memorization(PROBE)
    short = torch.arange(6)[None]
    memorization.update(short > 0, short > 0, short, torch.zeros_like(short))
    assert memorization.compute().isnan()


def test_short_probes_are_refused() -> None:
    with pytest.raises(
        ValueError, match="memorization: expected prompt_tokens and match_tokens from 1"
    ):
        MemorizationProbe(prompt_tokens=0)


def test_it_is_logged_where_documents_are_long_enough(tiny: Tiny) -> None:
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(tiny.module(memorization=PROBE), datamodule=tiny.data())
    assert 0 <= trainer.callback_metrics["clean_train/memorized"] <= 1
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(tiny.module(memorization=None), datamodule=tiny.data())
    assert not [name for name in trainer.callback_metrics if "memorized" in name]
