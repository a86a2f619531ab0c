import pytest
import torch

from lit_entrodrop.evaluation.task.answering import deal, generate, log_likelihoods
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.runtime.ranks import DataRank
from tests.helpers.tiny import Tiny

ALONE = DataRank(1, 0, True)
PROMPTS = [[9, 8, 7, 6], [5], [30, 31, 32, 33, 34, 35], [4, 3]]


@pytest.fixture(scope="module")
def causal_lm(tiny_module: Tiny) -> CausalLM:
    torch.manual_seed(0)
    return build_causal_lm(tiny_module.lm()).eval()


def test_outputs_are_those_of_transformers_and_end(causal_lm: CausalLM) -> None:
    expected = [
        causal_lm.unwrapped.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=None
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    never = generate(causal_lm, PROMPTS, 6, lambda tokens: False, 3, ALONE)
    assert never == expected
    # A batch ends with its last output.
    second = generate(causal_lm, PROMPTS, 6, lambda tokens: len(tokens) == 2, 3, ALONE)
    assert second == [tokens[:2] for tokens in expected]


def test_log_likelihoods_are_those_of_transformers(causal_lm: CausalLM) -> None:
    pairs = [(prompt, [11, 12, 13][: 1 + len(prompt) % 3]) for prompt in PROMPTS]
    expected = []
    for prompt, continuation in pairs:
        logits = causal_lm.unwrapped(torch.tensor([prompt + continuation])).logits[0]
        rows = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        expected.append(rows.gather(1, torch.tensor(continuation)[:, None]).sum().item())
    found = log_likelihoods(causal_lm, pairs, 3, ALONE)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_ranks_share_out_all_items_in_equally_many_batches(size: int) -> None:
    lengths = [3, 1, 4, 1, 5]
    dealt = [deal(lengths, DataRank(size, rank, True), 2) for rank in range(size)]
    assert len({len(batches) for batches in dealt}) == 1
    assert all(batch for batches in dealt for batch in batches)
    found = {number for batches in dealt for batch in batches for number in batch}
    assert found == set(range(5))
