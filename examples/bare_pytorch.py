"""Train a tiny Llama on Python's documentation with EntroDrop, in a bare PyTorch loop.

Run: ``python examples/bare_pytorch.py`` (CPU, offline, under a minute).
"""

from functools import partial
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from regularizers import (
    EmbeddingDropout,
    EntroDrop,
    Outputs,
    Regularizers,
    Sigmoid,
    TrainingStep,
    Vocabulary,
    perturbed_embeddings,
)

EPOCHS, BLOCKS, LENGTH, BATCH = 8, 64, 64, 8


def read_blocks() -> Tensor:
    """Split the text into blocks of bytes, ``[BLOCKS, LENGTH]`` int64."""
    text = "\n".join(topics.values()).encode()[: BLOCKS * LENGTH]
    return torch.tensor(list(text)).view(BLOCKS, LENGTH)


def main() -> None:
    """Train for a few epochs and print loss and drop rate of each."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_attention_heads=4, **sizes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    regularizers = Regularizers([EntroDrop(curriculum=Sigmoid(max=0.4)), EmbeddingDropout(0.05)])
    vocabulary = Vocabulary(size=256)
    regularizers.check(vocabulary)

    blocks = read_blocks()
    entropies = torch.full(blocks.shape, torch.nan)  # of the previous epoch; unknown in the first
    global_step, total_steps = 0, EPOCHS * BLOCKS // BATCH
    for epoch in range(EPOCHS):
        losses, drop_rates = [], []
        for batch in torch.randperm(BLOCKS).split(BATCH):
            step = TrainingStep(
                input_ids=blocks[batch],
                labels=blocks[batch],
                document_ids=torch.zeros_like(blocks[batch]),  # one document per block
                vocabulary=vocabulary,
                entropy=entropies[batch],
                progress=global_step / total_steps,
                global_step=global_step,
                epoch=epoch,
            )
            input_ids = regularizers.on_input_ids(step)
            perturb = partial(regularizers.on_embeddings, step=step)
            with perturbed_embeddings(model.get_input_embeddings(), perturb):
                logits = model(input_ids=input_ids, use_cache=False).logits
            outputs = Outputs.from_logits(logits, step.labels, step.document_ids)
            loss = regularizers.mean_loss(outputs, step)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            entropies[batch] = outputs.entropy
            global_step += 1
            losses.append(loss.detach())
            drop_rates.append(step.metrics["entro_drop/drop_rate"])
        mean_loss, drop_rate = torch.stack(losses).mean(), torch.stack(drop_rates).mean()
        print(f"epoch {epoch}  loss {mean_loss:.3f}  drop rate {drop_rate:.3f}")


if __name__ == "__main__":
    main()
