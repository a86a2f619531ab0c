from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.stored_weights import stored_weights
from lit_entrodrop.training.initial_weights import InitialWeights
from lit_entrodrop.training.optim.naming import named_parameters
from tests.helpers.tiny import save_llama


def test_values_that_the_files_have_are_not_copied(tmp_path: Path) -> None:
    whole = save_llama(tmp_path / "whole", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    # Weights of a file in another precision; a folder without its head, and one without files.
    model.model.save_pretrained(tmp_path / "trunk")
    for dtype, source, copied in (
        ("float32", "shards", 0),
        ("bfloat16", "whole", 0),
        ("float32", "whole", 320 * 16 * 2 + 4608),
        ("float32", "trunk", 320 * 16),
    ):
        parameters = named_parameters(
            build_causal_lm(LMConfig(str(tmp_path / "shards"), dtype=dtype))
        )
        initial = InitialWeights(parameters, str(tmp_path / source))
        assert initial.copied == copied, source
        before = {each: each.parameter.detach().clone() for each in parameters}
        for each in parameters:
            each.parameter.data += 1
        for each, value in before.items():
            part = initial.part(each.parameter, slice(3, 9))
            assert torch.equal(part, value.flatten()[3:9].float())
    (tmp_path / "shards/config.json").rename(tmp_path / "config.json")
    assert not stored_weights(str(tmp_path))
