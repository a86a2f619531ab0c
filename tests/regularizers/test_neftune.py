import numpy as np
import pytest
import scipy.stats
import torch
from torch.autograd import gradcheck

from regularizers.functional import document_positions
from regularizers.neftune import NEFTune, neftune_noise
from regularizers.testing import make_step, training_loss
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama


def draw(document_ids: torch.Tensor, dimensions: int, alpha: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return neftune_noise(document_ids >= 0, document_ids, dimensions, alpha, generator)


def test_loss_against_float64() -> None:
    model, step, alpha = make_llama(layers=2), make_step(), 50.0
    noise = torch.empty(3, 24, 16).uniform_(-1, 1, generator=step.generator()).double().numpy()
    embeddings = model.get_input_embeddings()(step.input_ids).detach().double().numpy()
    documents = step.document_ids.numpy()
    for row, place in step.alterable.nonzero().tolist():
        length = np.count_nonzero(documents[row] == documents[row, place])
        embeddings[row, place] += alpha / np.sqrt(length * 16) * noise[row, place]
    logits = model.double()(
        inputs_embeds=torch.from_numpy(embeddings),
        position_ids=document_positions(step.document_ids),
        attention_mask=None,
        use_cache=False,
    ).logits
    expected = mean(list(losses(logits, step).values()))
    actual = training_loss(NEFTune(alpha), model.float(), step).item()
    assert actual == pytest.approx(expected, abs=1e-5)
    assert abs(actual - training_loss(NEFTune(0.0), model, step).item()) > 1e-2


def test_noise_is_uniform_and_its_magnitude_follows_the_length() -> None:
    document_ids = torch.zeros(2, 100, dtype=torch.long)
    document_ids[1, 25:] = -1
    noise = draw(document_ids, 64, 5.0)
    for row, length in ((0, 100), (1, 25)):
        magnitude = 5.0 / (length * 64) ** 0.5
        sample = noise[row, :length].flatten() / magnitude
        assert scipy.stats.kstest(sample, "uniform", args=(-1, 2)).pvalue > 1e-4
    norms = torch.stack([noise[0].norm(), noise[1].norm()])
    torch.testing.assert_close(norms, torch.full((2,), 5 / 3**0.5), rtol=0.05, atol=0)
    assert not noise[1, 25:].any()


def test_packing_does_not_change_the_magnitude() -> None:
    packed = draw(torch.tensor([[0] * 4 + [1] * 12]), 2048, 5.0).abs().amax(-1)
    alone = draw(torch.tensor([[0] * 4 + [-1] * 12]), 2048, 5.0).abs().amax(-1)
    torch.testing.assert_close(packed[0, :4], alone[0, :4])
    ratio = packed[0, :4].mean() / packed[0, 4:].mean()
    assert ratio == pytest.approx(3**0.5, rel=1e-2)


def test_strength_above_any_bound_is_taken() -> None:
    step, embeddings = make_step(), torch.zeros(3, 24, 8)
    weak, strong = (NEFTune(each).on_embeddings(embeddings, step) for each in (5.0, 15.0))
    torch.testing.assert_close(3 * weak, strong)


def test_gradcheck() -> None:
    step = make_step(1, 6)
    embeddings = torch.randn(1, 6, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda each: NEFTune(5.0).on_embeddings(each, step), embeddings)
