"""What only running a model tells of it."""

import torch
from transformers import PreTrainedModel

from lit_entrodrop.model.causal_lm import model_arguments, probe_ids


def has_dropout(hf_model: PreTrainedModel) -> bool:
    """Tell whether a model draws random numbers in train mode, as dropout does.

    Its outputs would not tell: an adapter that is still zero hides the dropout of its inputs.
    """
    ids = probe_ids(hf_model, 8)
    positions = torch.arange(8, device=ids.device)[None]
    accelerated = ids.device.type != "cpu"
    device = torch.get_device_module(ids.device) if accelerated else torch
    was_training = hf_model.training
    with torch.random.fork_rng([ids.device] if accelerated else [], device_type=ids.device.type):
        before = device.get_rng_state()
        try:
            with torch.no_grad():
                hf_model.train()(**model_arguments(hf_model, ids, positions))
        finally:
            hf_model.train(was_training)
        return not torch.equal(device.get_rng_state(), before)
