"""Train a tiny Llama with EntroDrop in ``transformers.Trainer``; CPU, offline, under a minute."""

from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import regularizers as reg

BLOCKS, LENGTH, LOG_STEPS = 64, 64, 8
VOCABULARY = reg.Vocabulary(size=256)


class RegularizedTrainer(Trainer):
    """A Trainer with a regularized loss; entropies are from the previous epoch."""

    def __init__(self, regularizers: reg.Regularizers, **others: Any):
        super().__init__(**others)
        self.regularizers = regularizers
        self.entropies = torch.full((BLOCKS, LENGTH), torch.nan, device=self.args.device)
        regularizers.check(VOCABULARY)
        self.drop_rates: list[torch.Tensor] = []

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the regularized loss, or the plain loss in evaluation."""
        regularizers = self.regularizers.train(model.training)
        step = reg.TrainingStep(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            document_ids=torch.zeros_like(inputs["labels"]),  # one document per block
            vocabulary=VOCABULARY,
            entropy=self.entropies[inputs["block"]],
            progress=self.state.global_step / max(self.state.max_steps, 1),
            global_step=self.state.global_step,
        )
        embedding = self.accelerator.unwrap_model(model).get_input_embeddings()
        with reg.perturbed_embeddings(embedding, lambda e: regularizers.on_embeddings(e, step)):
            result = model(input_ids=regularizers.on_input_ids(step), use_cache=False)
        outputs = reg.Outputs.from_logits(result.logits, step.labels, step.document_ids)
        if model.training:
            self.entropies[inputs["block"]] = outputs.entropy
            self.drop_rates.append(step.metrics["entro_drop/drop_rate"])
        total, weight = regularizers.reduce(outputs, step)
        loss = total / (num_items_in_batch or weight.clamp(min=1))
        return (loss, result) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the actual drop rate to the Trainer's log."""
        drop_rate = torch.stack(self.drop_rates[-LOG_STEPS:]).mean().item()
        super().log(logs | {"drop_rate": round(drop_rate, 3)}, start_time)


def read_blocks() -> list[dict[str, Any]]:
    """Split the text into blocks of bytes; nothing predicts the first byte of each."""
    text = "\n".join(topics.values()).encode()[: BLOCKS * LENGTH]
    ids = torch.tensor(list(text)).view(BLOCKS, LENGTH)
    labels = torch.cat([torch.full((BLOCKS, 1), -100), ids[:, 1:]], dim=1)
    return [{"block": i, "input_ids": ids[i], "labels": labels[i]} for i in range(BLOCKS)]


def main() -> None:
    """Train for a few epochs."""
    chosen = [reg.EntroDrop(curriculum=reg.Sigmoid(max=0.8)), reg.EmbeddingDropout(0.05)]
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_attention_heads=4, **sizes))
    settings: dict[str, Any] = {"num_train_epochs": 8, "learning_rate": 3e-3, "disable_tqdm": True}
    settings |= {"logging_steps": LOG_STEPS, "save_strategy": "no", "remove_unused_columns": False}
    with TemporaryDirectory() as folder:
        pieces = {"args": TrainingArguments(folder, **settings), "train_dataset": read_blocks()}
        RegularizedTrainer(reg.Regularizers(chosen), model=model, **pieces).train()


if __name__ == "__main__":
    main()
