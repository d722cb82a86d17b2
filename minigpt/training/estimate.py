"""Will it fit into memory? Asked before step 0, so that the answer does not come after an hour."""

import torch

from minigpt.model.gpt import GPT
from minigpt.optim.config import OptimConfig
from minigpt.training.config import RunConfig
from minigpt.training.stage import Prepared

FLOAT32 = 4  # bytes


def memory_estimate(prepared: Prepared, run: RunConfig, dtype: torch.dtype, world: int) -> int:
    """Bytes at the top of one training step: what stands anyway, and what autograd keeps of each model that learns.

        N · L · (12 C + 4 F) · itemsize  + N · V · 4 (what is kept of the logits, up to 128 MB)      N = rows · T here

    The factor of the activations counts what autograd keeps of one block: the two norms' inputs and outputs, q, k, v,
    attention's output, the MLP's hidden values. It is an estimate: measured peaks lie within about a third of it.
    """
    N = run.batches.batch_size // world * prepared.rows_each * prepared.gpt.config.context_length
    kept = 0
    for config in (model.config for model in prepared.trained.modules() if isinstance(model, GPT)):
        kept += N * config.n_layer * (12 * config.n_embd + 4 * config.hidden) * dtype.itemsize
        kept += min(N * config.vocab_size, 2**25) * FLOAT32
    return int(standing(prepared, run.optim, dtype) + kept)


def standing(prepared: Prepared, optim: OptimConfig, dtype: torch.dtype) -> float:
    """Bytes that are there in every step: weights, gradients, optimizer state, and the weights of what never learns.

        P · (4 + itemsize of low-precision copies, if any) + trained P · 4 · (1 gradient + s optimizer slots)
        + frozen P · 4
    """
    parameters = list(prepared.trained.parameters())
    n_params, n_trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    n_frozen = sum(p.numel() for model in prepared.frozen for p in model.parameters())
    slots = 2 if optim.optimizer == "adamw" else 1.3  # Muon keeps one moment for matrices, AdamW two for the rest
    copies = dtype.itemsize if dtype.itemsize < FLOAT32 else 0
    return n_params * (FLOAT32 + copies) + n_trained * FLOAT32 * (1 + slots) + n_frozen * FLOAT32
