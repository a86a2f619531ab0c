from typing import Any

import pytest

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.doctor.configured_run import configured_run, probing_config
from tests.helpers.doctor import make_run
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"limit_train_batches": 3},
        {"limit_train_batches": 0.5, "accumulate_grad_batches": 2},
        {"max_steps": 7},
    ],
)
def test_steps_are_those_that_lightning_takes(tiny_module: Tiny, settings: dict[str, Any]) -> None:
    module, data = tiny_module.module(), tiny_module.data()
    trainer = tiny_module.trainer(limit_val_batches=0, **settings)
    trainer.fit(module, datamodule=data)
    assert make_run(tiny_module, trainer=settings).steps == trainer.global_step


def test_steps_of_repacked_text_are_those_of_the_longest_epoch(tiny: Tiny) -> None:
    long = [" ".join(texts(9, seed)) for seed in range(8)]
    corpus = write_corpus(tiny.folder / "long.jsonl", long)
    settings = {"corpus": str(corpus), "repack": "epoch", "packing": False}
    settings |= {"batch_size": 1, "validation": 0.0}
    data = tiny.data(**settings)
    data.setup()
    data.trainer = tiny.trainer(max_epochs=5)
    run = make_run(tiny, data=settings, trainer={"max_epochs": 5})
    assert run.steps_per_epoch == data.steps_per_epoch() > len(data.blocks("train"))
    assert run.steps == 5 * run.steps_per_epoch


def test_config_as_a_whole_is_built_without_its_folder_and_devices(tiny: Tiny) -> None:
    words = [*tiny.config(), "--config", str(CONFIGS / "regularizers" / "entrodrop.yaml")]
    words += ["--trainer.default_root_dir", str(tiny.folder / "run"), "--trainer.devices=4"]
    config = resolved_config([*words, "--trainer.strategy=ddp", "--ckpt_path=last"])
    before = repr(config)
    with configured_run(config) as run:
        assert run.trainer.world_size == 1
        assert run.trainer.max_epochs == 2
        assert run.module.regularizers.names == ["entro_drop"]
        assert run.data.block_size == 16
        run.read_data()
        assert run.steps_per_epoch == 3
    assert repr(config) == before
    assert not (tiny.folder / "run").exists()


def test_probing_config_has_no_run_folder(tiny: Tiny) -> None:
    config = resolved_config(tiny.config())
    config["model"]["lm"]["compile"] = True
    probing = probing_config(config, "elsewhere")
    assert probing["trainer"]["default_root_dir"] == "elsewhere"
    assert probing["model"]["lm"]["compile"] is False
    assert config["model"]["lm"]["compile"] is True
