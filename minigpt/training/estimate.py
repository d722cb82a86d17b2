"""Will it fit into memory? Asked before step 0, so that the answer does not come after an hour."""

import torch

from minigpt.model.gpt import GPT
from minigpt.training.config import RunConfig

FLOAT32 = 4  # bytes


def memory_estimate(model: GPT, run: RunConfig, dtype: torch.dtype, world: int) -> int:
    """Bytes at the top of one training step: weights, gradients, optimizer state, activations.

        P · (4 + itemsize of low-precision copies, if any) + trained P · 4 · (1 gradient + s optimizer slots)
        + N · L · (12 C + 4 F) · itemsize  + N · V · 4 (what is kept of the logits, up to 128 MB)  N = B · T here

    The factor of the activations counts what autograd keeps of one block: the two norms' inputs and outputs, q, k, v,
    attention's output, the MLP's hidden values. It is an estimate: measured peaks lie within about a third of it.
    """
    config = model.config
    parameters = list(model.parameters())
    n_params, n_trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    slots = 2 if run.optim.optimizer == "adamw" else 1.3  # Muon keeps one moment for matrices, AdamW two for the rest
    item = dtype.itemsize
    copies = 0 if item >= FLOAT32 else item
    N = run.batches.batch_size // world * config.context_length
    activations = N * config.n_layer * (12 * config.n_embd + 4 * config.hidden) * item
    logits = min(N * config.vocab_size, 2**25) * FLOAT32
    return int(n_params * (FLOAT32 + copies) + n_trained * FLOAT32 * (1 + slots) + activations + logits)
