"""Which blocks real runs read, under built-in and user-written orders."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lit_entrodrop.data.orders import LearnFocusReview, Shuffled
from lit_entrodrop.data.orders.training_order import TrainingOrder
from lit_entrodrop.model.clean_pass import forward_clean
from regularizers import EntroDrop, RandomTokenDropout
from tests.helpers.tiny import Tiny

PAGE = (Path(__file__).parents[4] / "docs" / "order.md").read_text(encoding="utf-8")
# A model that does not learn gives each block a constant loss.
STANDING = ["--model.optimizer.lr=0", "--trainer.max_epochs=4"]
FOCUS = ["--data.order=LearnFocusReview"]


class Readings(L.Callback):
    """Writes down which blocks each rank reads in each epoch."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        file = Path(trainer.default_root_dir) / f"{trainer.current_epoch}-{trainer.global_rank}"
        with file.open("a") as rows:
            rows.write(json.dumps(batch["block_id"].tolist()) + "\n")


WRITTEN = [f"--trainer.callbacks+={__name__}.Readings"]


def read(folder: Path, epoch: int, rank: int = 0) -> list[int]:
    rows = (folder / f"{epoch}-{rank}").read_text().splitlines()
    return [block for row in rows for block in json.loads(row)]


@pytest.fixture(scope="module")
def focused(tiny_module: Tiny) -> Path:
    return tiny_module.run("fit", *STANDING, *FOCUS, *WRITTEN, root="focused")


@pytest.fixture(scope="module")
def losses(tiny_module: Tiny) -> torch.Tensor:
    """The loss of each training block under the weights that runs begin and end with."""
    module, data = tiny_module.module(), tiny_module.data()
    module.optimization.make = lambda params: torch.optim.SGD(params, lr=0.0)
    tiny_module.trainer(max_epochs=1).fit(module, datamodule=data)
    losses = []
    for batch in data.ordered_dataloader("train"):
        nll = forward_clean(module.causal_lm, batch).nll.double()
        losses += (nll.sum(1) / (nll > 0).sum(1)).tolist()
    return torch.tensor(losses)


def test_focus_reads_the_blocks_of_the_highest_loss_and_review_reads_all(
    focused: Path, losses: torch.Tensor
) -> None:
    blocks = list(range(len(losses)))
    hardest = losses.argsort(descending=True).tolist()[: round(len(losses) / 2)]
    for epoch in (0, 2):
        assert sorted(read(focused, epoch)) == blocks
    for epoch in (1, 3):
        counts = Counter(read(focused, epoch))
        assert sorted(counts) == sorted(hardest)
        assert counts.total() == len(blocks)
        assert set(counts.values()) <= {1, 2, 3}


def test_two_ranks_read_what_one_reads(tiny_module: Tiny, focused: Path) -> None:
    arguments = [*STANDING, *FOCUS, *WRITTEN, "--trainer.max_epochs=2", "--model.memorization=null"]
    two = tiny_module.run_ranks("fit", *arguments, root="two")
    for epoch in range(2):
        shares = [read(two, epoch, rank) for rank in (0, 1)]
        dealt = [block for pair in zip(*shares, strict=True) for block in pair]
        assert [block for block in dealt if block != -1] == read(focused, epoch)


def test_own_order_of_the_page_works_from_a_file_of_the_user(
    tiny_module: Tiny, losses: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    (tiny_module.folder / "my_order.py").write_text(source)
    monkeypatch.syspath_prepend(str(tiny_module.folder))
    [given] = re.findall(r"(--data.order my_order\S+ \S+ \S+)\n", PAGE)
    run = tiny_module.run("fit", *STANDING, *given.split(), *WRITTEN, root="own")
    assert losses[read(run, 1)].diff().min() >= 0 > losses[read(run, 2)].diff().min()
    assert all(sorted(read(run, epoch)) == list(range(len(losses))) for epoch in range(4))


def test_orders_that_repeat_are_refused_with_entropies_of_the_last_epoch(tiny: Tiny) -> None:
    data = tiny.data(order=LearnFocusReview())
    with pytest.raises(ValueError, match=r"data.order: .* LearnFocusReview.* reference or online"):
        tiny.trainer().fit(tiny.module(EntroDrop()), datamodule=data)


@pytest.mark.parametrize(
    "regularizer",
    [EntroDrop(entropy_source="online"), EntroDrop(entropy_source="reference")],
    ids=lambda each: each.entropy_source,
)
def test_orders_that_repeat_go_with_other_entropies(tiny: Tiny, regularizer: Any) -> None:
    trainer = tiny.trainer(max_epochs=2)
    trainer.fit(tiny.module(regularizer), datamodule=tiny.data(order=LearnFocusReview()))
    assert trainer.global_step == 2 * trainer.num_training_batches


def test_only_orders_that_read_losses_keep_them(tiny: Tiny) -> None:
    kept = {}
    for order in (Shuffled(), LearnFocusReview()):
        data = tiny.data(order=order)
        tiny.trainer(max_epochs=1).fit(tiny.module(RandomTokenDropout()), datamodule=data)
        kept[type(order)] = data.state_dict()["ordering"]
    assert kept[Shuffled] == {}
    assert not kept[LearnFocusReview]["losses"]["values"].isnan().any()


def test_another_order_is_refused_within_an_epoch_alone(tiny: Tiny) -> None:
    states = []
    for bounds in ({"max_steps": 2}, {"max_epochs": 1}):
        data = tiny.data()
        tiny.trainer(**bounds).fit(tiny.module(), datamodule=data)
        states.append(data.state_dict())
    amid, ended = states
    other = tiny.data(order=LearnFocusReview())
    other.setup()
    with pytest.raises(ValueError, match=r"expected .*Shuffled\(\), .*, got .*LearnFocusReview"):
        other.load_state_dict(amid)
    other.load_state_dict(ended)
    other.trainer = tiny.trainer()
    other.trainer.state.fn = TrainerFn.VALIDATING
    other.load_state_dict(amid)


def order_of(count: int = 6, **settings: Any) -> TrainingOrder:
    return TrainingOrder(LearnFocusReview(**settings), count, seed=0, count_epochs=lambda: 4)


def record(order: TrainingOrder, losses: list[float]) -> None:
    nll = torch.tensor(losses)[:, None]
    order.record(torch.arange(len(losses)), nll, torch.ones_like(nll, dtype=torch.bool))


def test_losses_recorded_within_an_epoch_do_not_change_its_order() -> None:
    order, restored = order_of(), order_of()
    record(order, [0, 1, 2, 3, 4, 5])
    begun = order(1).tolist()
    assert set(begun) == {3, 4, 5}
    record(order, [5, 4, 3, 2, 1, 0])
    restored.load_state_dict(order.state_dict())
    for each in (order, restored):
        assert each(1).tolist() == begun
        assert set(each(3).tolist()) == {0, 1, 2}


def test_state_of_an_order_without_losses_is_no_hindrance() -> None:
    order = order_of()
    order.load_state_dict(TrainingOrder(Shuffled(), 6, 0, lambda: 4).state_dict())
    assert np.isin(order(1), range(6)).all()
