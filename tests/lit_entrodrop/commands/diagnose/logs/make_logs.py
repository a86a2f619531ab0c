"""Makes the logs of this folder: the Trainer of Transformers and Lightning really overfit.

Both fine-tune the bundled LM on a sample of the guides in docs/, at a learning rate that is far too
high. Run from the repository root; it takes minutes on one CPU core:

    python tests/lit_entrodrop/commands/diagnose/logs/make_logs.py

- ``hugging_face/checkpoint-240/trainer_state.json`` and ``tensorboard_hugging_face/``: `Trainer`,
  evaluated every half epoch.
- ``lightning/version_0/metrics.csv`` and ``tensorboard_lightning/``: `CSVLogger` and
  `TensorBoardLogger`, evaluated after each epoch.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

HERE = Path(__file__).parent
MODEL = "lit_entrodrop/model/tiny_base"
BLOCK, TRAINED, HELD_OUT, BATCH, EPOCHS, RATE = 64, 240, 64, 8, 8, 3e-3
ROWS = {"logging_steps": 3, "save_steps": 240, "eval_steps": 15}


def blocks():
    text = "\n".join(path.read_text() for path in sorted(Path("docs").glob("*.md")))
    tokens = torch.tensor(AutoTokenizer.from_pretrained(MODEL)(text)["input_ids"])
    order = torch.randperm(len(tokens) // BLOCK, generator=torch.Generator().manual_seed(0))
    found = tokens[: len(order) * BLOCK].view(-1, BLOCK)[order]
    examples = [{"input_ids": each, "labels": each} for each in found]
    return examples[:TRAINED], examples[TRAINED : TRAINED + HELD_OUT]


def model():
    seed_everything(0)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def hugging_face(folder):
    trained, held_out = blocks()
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=HELD_OUT,
        num_train_epochs=EPOCHS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        report_to="tensorboard",
        use_cpu=True,
        **ROWS,
    )
    Trainer(model(), arguments, train_dataset=trained, eval_dataset=held_out).train()


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model()

    def training_step(self, batch):
        loss = self.model(**batch).loss
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch):
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), RATE)


def lightning(folder):
    loaders = [DataLoader(each, BATCH, shuffle=i == 0) for i, each in enumerate(blocks())]
    loggers = [CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")]
    LightningTrainer(
        max_epochs=EPOCHS,
        logger=loggers,
        log_every_n_steps=ROWS["logging_steps"],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
    ).fit(Module(), *loaders)


def keep(paths, target):
    shutil.rmtree(HERE / target, ignore_errors=True)
    (HERE / target).mkdir(parents=True)
    for path in paths:
        shutil.copy(path, HERE / target)


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        hugging_face(Path(made) / "hf")
        lightning(made)
        state = Path(made, "hf/checkpoint-240/trainer_state.json")
        keep([state], "hugging_face/checkpoint-240")
        keep(Path(made).glob("hf/**/events.*"), "tensorboard_hugging_face")
        keep(Path(made).glob("csv/version_0/metrics.csv"), "lightning/version_0")
        keep(Path(made).glob("tensorboard/version_0/events.*"), "tensorboard_lightning")
