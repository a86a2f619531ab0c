from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.training.callbacks import PredictionWriter
from lit_entrodrop.training.callbacks.prediction_writer import token_table
from lit_entrodrop.training.module import LitCausalLM
from tests.helpers.tiny import Tiny, write_corpus


def predict(tiny: Tiny, split: str) -> tuple[pd.DataFrame, LitCausalLM, TextDataModule]:
    module, data = tiny.module(), tiny.data(predict_split=split)
    trainer = tiny.trainer(callbacks=[PredictionWriter(tiny.folder / "predicted")])
    trainer.predict(module, datamodule=data, return_predictions=False)
    [path] = (tiny.folder / "predicted").iterdir()
    assert path.name == "predictions-0.parquet"
    return pq.read_table(path).to_pandas(), module, data


@pytest.mark.parametrize("split", ["train", "validation"])
def test_one_row_a_token_with_the_models_values(tiny: Tiny, split: str) -> None:
    table, module, data = predict(tiny, split)
    assert set(table.columns) == {
        "block_id",
        "document",
        "position",
        "token_id",
        "token",
        "nll",
        "entropy",
        "counted",
    }
    blocks = data.blocks(split)
    assert len(table) == blocks.num_tokens
    np.testing.assert_array_equal(table["token_id"], blocks.gather()[0])
    model = module.causal_lm.unwrapped.double().eval()
    for (block, document), rows in table.groupby(["block_id", "document"]):
        if block % 7:
            continue
        ids = torch.tensor(rows["token_id"].to_numpy())[None]
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1).detach()
        nll = -logprobs.gather(-1, ids[0, 1:, None])[:, 0]
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        np.testing.assert_allclose(rows["nll"].iloc[1:], nll, rtol=1e-4)
        np.testing.assert_allclose(rows["entropy"].iloc[1:], entropy, rtol=1e-4)
        assert np.isnan(rows["entropy"].iloc[0]), (block, document)
        assert rows["counted"].tolist() == [False] + [True] * (len(rows) - 1)
        assert (np.diff(rows["position"]) == 1).all()
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    first = table[table["block_id"] == 0]
    assert tokenizer.convert_tokens_to_string(first["token"].tolist()) == tokenizer.decode(
        first["token_id"].tolist()
    )


def test_prompt_is_written_and_not_counted(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, [])
    line = '{"prompt": "acute %d", "completion": " fever of the heart"}\n'
    tiny.corpus.write_text("".join(line % number for number in range(30)))
    table, _, _ = predict(tiny, "train")
    counted = table.groupby(["block_id", "document"])["counted"].agg(["sum", "size"])
    assert (counted["sum"] > 0).all()
    assert (counted["sum"] < counted["size"] - 1).all()


def test_padding_and_dummy_blocks_are_left_out(tiny: Tiny) -> None:
    shape = (2, 4)
    prediction = {
        "input_ids": torch.tensor([[5, 6, 1, 1], [1, 1, 1, 1]]),
        "labels": torch.tensor([[-100, 6, -100, -100], [-100] * 4]),
        "document_ids": torch.tensor([[0, 0, -1, -1], [0, 0, 0, 0]]),
        "block_id": torch.tensor([3, -1]),
        "nll": torch.ones(shape),
        "entropy": torch.ones(shape),
    }
    table = token_table(prediction, load_tokenizer(str(tiny.tokenizer))).to_pydict()
    assert table["block_id"] == [3, 3]
    assert table["position"] == [0, 1]
    assert table["token_id"] == [5, 6]
    assert table["counted"] == [False, True]


def test_interrupted_prediction_leaves_no_file(tiny: Tiny) -> None:
    folder = tiny.folder / "predicted"
    trainer = tiny.trainer(callbacks=[PredictionWriter(folder), Interrupt()])
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer.predict(tiny.module(), datamodule=tiny.data(), return_predictions=False)
    assert not list(folder.iterdir())


class Interrupt(L.Callback):
    def on_predict_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        raise RuntimeError("interrupted")
