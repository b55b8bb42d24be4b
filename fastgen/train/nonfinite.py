"""A likelihood that is not finite: where it came from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..flows import Composed, Flow
from .batches import Batch
from .evaluate import LogProb, row_log_prob


class NonFiniteLoss(RuntimeError):
    """The log-likelihood or its gradient became nan or inf; the message names the step and the term."""


def offending_term(model: nn.Module, log_prob: LogProb, batch: Batch) -> str:
    """What is not finite when `model` is trained on `batch`: a parameter, a term of log_prob, or a gradient."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} is not finite"
    model.zero_grad()
    values = row_log_prob(log_prob, batch)
    bad = ~values.detach().isfinite()
    if bad.any():
        found = f"log_prob is {values[bad][0].item()} in {int(bad.sum())} of {len(values)} rows"
        term = _flow_term(model, batch, bad) if isinstance(model, Flow) else None
        return found if term is None else f"{found}: {term} is not finite"
    values.mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name} is not finite"
    return "nothing that shows when the step is repeated"


@torch.no_grad()
def _flow_term(model: Flow, rows: Batch, bad: Tensor) -> str:
    """Where the bad rows first are not finite. All go along: a batch-norm sees them together."""
    x, context = rows.x, model.seen_context(rows.context)
    for i, transform in enumerate(model.transform if isinstance(model.transform, Composed) else [model.transform]):
        x, log_det = transform(x, context)
        for what, value in (("output", x), ("log_det", log_det)):
            if not value[bad].isfinite().all():
                return f"the {what} of transform {i} ({type(transform).__name__})"
    return f"the log_prob of the base ({type(model.base).__name__})"
