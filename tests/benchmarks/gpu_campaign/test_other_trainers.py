from pathlib import Path

from transformers import AutoConfig

from benchmarks.gpu_campaign.sizes import ARCHITECTURES
from benchmarks.peers.training import prepare_model


def test_model_has_the_ids_of_its_tokenizer_rather_than_those_of_the_architecture(
    tmp_path: Path,
) -> None:
    assert ARCHITECTURES["tiny"]["bos_token_id"] >= ARCHITECTURES["tiny"]["vocab_size"]
    prepare_model(tmp_path, ARCHITECTURES["tiny"], block_size=16, batch_size=2, turn=2, steps=3)
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert config.bos_token_id is None
    assert 0 <= config.eos_token_id < config.vocab_size
    assert 0 <= config.pad_token_id < config.vocab_size
