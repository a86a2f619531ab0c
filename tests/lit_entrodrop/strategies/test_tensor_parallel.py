"""Two and four real ranks that share out layers, against one process."""


import shutil

import torch

from lit_entrodrop.metrics_file import read_metrics
from tests.helpers.runs import assert_same_curves, exported
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

TENSOR_PARALLEL = ["--config", str(CONFIGS / "strategy/fsdp2_tp.yaml")]
EVERYTHING = [
    "--model.regularizers+=regularizers.EntroDrop",
    "--model.lm.config_overrides={num_key_value_heads: 2}",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.1",
    "--trainer.max_epochs=3",
    "--trainer.log_every_n_steps=1",
]


def test_two_ranks_share_out_the_layers_and_resume_as_one_process_does(tiny: Tiny) -> None:
    write_corpus(tiny.corpus, texts(90))
    one = tiny.run("fit", *EVERYTHING, root="one")
    two = tiny.run_ranks("fit", *EVERYTHING, *TENSOR_PARALLEL, root="two")
    assert len(read_metrics(two)["train/loss"].dropna()) >= 10
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)

    told = ["--trainer.callbacks+", "tests.helpers.plugins.TellToEnd"]
    told += ["--trainer.callbacks.rank=1", "--trainer.callbacks.step=5"]
    tiny.run_ranks("fit", *EVERYTHING, *TENSOR_PARALLEL, *told, root="again")
    shutil.copytree(tiny.folder / "again", tiny.folder / "alone")
    resume = [*EVERYTHING, "--ckpt_path=last"]
    again = tiny.run_ranks("fit", *resume, *TENSOR_PARALLEL, root="again")
    torch.testing.assert_close(exported(again), exported(two), atol=0, rtol=0)
    alone = tiny.run_ranks("fit", *resume, "--trainer.strategy=fsdp2", root="alone", world_size=1)
    torch.testing.assert_close(exported(alone), exported(two), atol=1e-5, rtol=1e-4)


def test_four_ranks_in_two_groups_equal_two_ranks(tiny: Tiny) -> None:
    uneven = ["--model.lm.config_overrides={num_key_value_heads: 2, intermediate_size: 34}"]
    uneven += ["--model.lm.activation_checkpointing=true"]
    two = tiny.run_ranks("fit", *EVERYTHING, *uneven, "--trainer.strategy=ddp", root="two")
    four = tiny.run_ranks(
        "fit", *EVERYTHING, *TENSOR_PARALLEL, *uneven, root="four", world_size=4
    )
    assert_same_curves(four, two, 1e-5)
    torch.testing.assert_close(exported(four), exported(two), atol=1e-5, rtol=1e-4)
