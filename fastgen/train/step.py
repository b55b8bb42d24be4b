"""One step of the optimiser, that neither waits for the device nor takes in a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .batches import Batch
from .config import TrainConfig
from .evaluate import LogProb, log_prob_of, row_log_prob


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """Adam with decoupled weight decay: fused where the device has it, else one call per operation for all tensors."""
    parameters = [p for p in parameters if p.requires_grad]
    try:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    except RuntimeError:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)


class Step:
    """Steps of Adam on the mean negative log_prob per dimension.

    Attributes:
        totals: float64, on the device: the sum of weight times log_prob since `clear`, and that of the weights.
        left_out: on the device: the steps left out since `clear`. Where the run is to stop at the first, all later ones are
            left out too, so that the weights stay what they were when somebody looks.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, features: int, mean_weight: float) -> None:
        self.config, self.features, self.mean_weight = config, features, mean_weight
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = adam(self.parameters, config.learning_rate, config.weight_decay)
        self.log_prob: LogProb = torch.compile(log_prob_of(model)) if config.compile else log_prob_of(model)
        device = self.parameters[0].device
        half = config.precision == "bfloat16"
        self._precision = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)
        self.left_out = torch.zeros((), device=device)

    def clear(self) -> None:
        self.totals.zero_()
        self.left_out.zero_()

    def __call__(self, batch: Batch, rate: float) -> None:
        self.optimizer.zero_grad()
        totals = self._gradients(batch)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None], foreach=True)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm, foreach=True)
        self._update(totals, norm, rate)

    def _gradients(self, batch: Batch) -> Tensor:
        """Adds the gradient of a batch to that of the parameters; the batch's share of `totals`."""
        rows = len(batch.x)
        share = -1 / (rows * self.mean_weight * self.features)
        totals = torch.zeros_like(self.totals)
        for piece in batch.split(-(-rows // self.config.accumulate)):
            with self._precision:
                log_prob = row_log_prob(self.log_prob, piece)
            nats = log_prob if piece.weight is None else piece.weight * log_prob
            (share * nats.sum()).backward()
            totals[0] += nats.detach().double().sum()
            totals[1] += len(nats) if piece.weight is None else piece.weight.double().sum()
        return totals

    def _update(self, totals: Tensor, norm: Tensor, rate: float) -> None:
        bad = ~(norm.isfinite() & totals[0].isfinite())
        if self.config.on_nonfinite == "stop":
            bad = bad | (self.left_out > 0)
        self.left_out += bad
        self.totals += totals.where(~bad, 0.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.optimizer.defaults["fused"]:
            # The optimiser's own switch for a step to leave out, read on the device.
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        elif bad.item():
            return
        self.optimizer.step()
