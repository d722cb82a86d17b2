"""What one step really holds, counted tensor by tensor: the truth that the estimate of memory is compared with."""

import torch
from torch import Tensor

from minigpt.batches.loader import Batch
from minigpt.optim.groups import build_optimizer
from minigpt.training.config import RunConfig
from minigpt.training.stage import Prepared


def counted_bytes(prepared: Prepared, run: RunConfig, batch: Batch) -> tuple[int, int]:
    """(weights, gradients and optimizer state; what autograd keeps for the way back) of a step with this batch."""
    weights = [weight for model in (prepared.trained, *prepared.frozen) for weight in model.parameters()]
    places = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    optimizer = build_optimizer(prepared.trained, run.optim)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = prepared.stage.objective(prepared.stage.model, batch).value
    activations = sum(size for place, size in kept.items() if place not in places)
    loss.backward()
    optimizer.step()
    moments = [tensor for tensor in optimizer.state_dict().values() if isinstance(tensor, Tensor) and tensor.ndim]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return sum(tensor.nbytes for tensor in (*weights, *gradients, *moments)), activations
