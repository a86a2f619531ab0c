"""Train a tiny Llama with a vocabulary of 32,768 tokens in a bare loop, through the fused head.

One pass computes loss and entropy of every token, without the logits of all tokens. It also
computes the gradients, because the token weights are known in advance.

Run: ``python examples/fused_head.py`` (CPU, offline, under a minute).
"""

from pydoc_data.topics import topics

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_entrodrop.model.head import linear_ce_entropy

STEPS, BATCH, LENGTH, VOCABULARY = 20, 4, 128, 32768


def main() -> None:
    """Train for a few steps, and print loss and entropy."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text = "\n".join(topics.values()).encode()[: STEPS * BATCH * LENGTH]
    for step, ids in enumerate(torch.tensor(list(text)).view(STEPS, BATCH, LENGTH)):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        # The hidden state at t predicts token t + 1.
        labels = ids[:, 1:].flatten()
        outputs = linear_ce_entropy(
            hidden[:, :-1].flatten(0, 1),
            model.lm_head.weight,
            labels,
            token_weight=torch.ones(labels.shape),
        )
        assert outputs.weighted_loss is not None, "token weights are set"
        loss = outputs.weighted_loss / labels.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step:2}  loss {loss.item():.3f}  entropy {outputs.entropy.mean():.3f}")


if __name__ == "__main__":
    main()
