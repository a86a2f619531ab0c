"""Two real ranks under DDP against one process."""

import torch

from lit_entrodrop.metrics_file import read_metrics
from tests.helpers.runs import assert_same_curves, exported
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

DDP = ["--config", str(CONFIGS / "strategy/ddp.yaml")]
# Every low-entropy token is dropped: one process cannot draw the random numbers of two.
EVERYTHING = [
    "--model.regularizers+=regularizers.EntroDrop",
    "--model.regularizers.curriculum=1.0",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.1",
    "--trainer.max_epochs=4",
    "--trainer.log_every_n_steps=1",
]


def test_two_ranks_train_as_one_process_does(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(90))
    one = tiny.run("fit", *EVERYTHING, "--data.batch_size=8", root="one")
    two = tiny.run_ranks("fit", *EVERYTHING, *DDP, root="two")
    assert len(read_metrics(two)["train/loss"].dropna()) >= 10
    assert read_metrics(two)["entro_drop/drop_rate"].max() > 0.2
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)
