"""Densities that are products of conditionals, one per feature, with a MADE behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..flows import Bounds, Composed, Logit, Standardise, Transform, UnitInterval
from ..flows.batch import match_context, sample_shape
from ..flows.registry import described, preprocessing
from ..nn import MADE
from ..nn.made import Reordered
from ..nn.pretrained import Pretrained
from ..ops import _check, autoregressive_sample
from ..reference.accumulate import accumulator
from .conditionals import Conditional
from .cycle import Cycle
from .patterns import distinct_rows, expand_observed, observed_first

# What transforms each feature by itself, and so keeps apart the observed and the missing.
ELEMENTWISE = (Bounds, Logit, Standardise, UnitInterval)


class AutoregressiveDensity(Pretrained):
    """p(x) = prod_i p(x_i | the features before i), the parameters of each conditional from a MADE.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation". With several masks it is a family of such
    densities over one set of weights (its sections 4.2 and 4.3). In training mode `log_prob` takes them in turn, one per call.
    In evaluation mode, and for samples always, the density is their equal mixture. `mask=i` picks one. Compiled in training
    mode, every mask has a graph of its own: set `torch._dynamo.config.recompile_limit` to their number, or the masks beyond
    the limit run uncompiled (under `fullgraph=True` they raise).

    Args:
        features: D.
        conditional: the distribution of one feature.
        preprocess: transforms of continuous data before the network, as `fastgen.flows.MAF` takes them.
        options: those of `fastgen.nn.MADE`, `outputs` and `inputs` excepted.

    Attributes:
        discrete: whether `log_prob` is of probabilities, not densities.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    discrete: bool = False

    def __init__(
        self,
        features: int,
        conditional: Conditional,
        *,
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        before = [preprocessing(t).to(device=device, dtype=dtype) for t in preprocess]
        if before and conditional.discrete:
            raise ValueError(f"preprocess: expected none with discrete features, found {len(before)}")
        self.conditional, self.discrete = conditional, conditional.discrete
        self.preprocess = Composed(before) if before else None
        sizes: dict[str, Any] = {"outputs": conditional.outputs, "inputs": conditional.inputs}
        self.made = MADE(features, **sizes, device=device, dtype=dtype, **options)
        self.cycle = Cycle(self.masks) if self.masks > 1 else None
        with torch.no_grad():
            bias = self.made.layers[-1].bias
            assert bias is not None
            bias.add_(conditional.start.repeat(features).to(bias))

    @property
    def features(self) -> int:
        return self.made.features

    @property
    def masks(self) -> int:
        return len(self.made.networks)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same kind of model again; its state_dict holds all numbers.

        Raises TypeError where `preprocess` holds a transform of one's own.
        """
        made = {name: value for name, value in self.made.config.items() if name not in ("outputs", "inputs")}
        config = {**made, **self.conditional.config}
        return config if self.discrete else {**config, "preprocess": [described(t) for t in self.preprocess or ()]}

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: int | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.log_prob(x, context, mask=mask)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, mask: int | None = None) -> Tensor:
        """The log-density of x (..., D) given context (..., F), their batches broadcast: (...) in nats.

        x is of the parameters' dtype; discrete features, and integers, of any. float64 for float64 parameters, else float32.

        mask: the number of one mask; None: in training mode the one whose turn it is, in evaluation mode the mixture of all.
        """
        x = self._data(x, context)
        if mask is None and self.cycle is not None and self.training:
            mask = self.cycle.next()
        terms = self.made.context_terms(context)
        if self.preprocess is None:
            return self._log_prob(x, terms, mask)
        y, log_det = self.preprocess(x)
        return self._log_prob(y, terms, mask) + log_det

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mask: int | None = None,
    ) -> Tensor:
        """n samples, without gradients: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        In the parameters' dtype; discrete features in float32 at least. Each sample is of a mask drawn for it, or of `mask`.

        generator: where the samples are drawn from, on the device of the model; None: torch's own.
        """
        return self._draw(n, context, generator, mask)

    def rsample(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mask: int | None = None,
    ) -> Tensor:
        """`sample` with gradients: of the samples with respect to parameters and context.

        Raises NotImplementedError where what is drawn is not differentiable.
        """
        if not self.conditional.reparameterised:
            raise NotImplementedError(f"rsample: samples of {type(self.conditional).__name__} conditionals have no gradient")
        return self._draw(n, context, generator, mask)

    def _draw(
        self, n: int | Sequence[int], context: Tensor | None, generator: torch.Generator | None, mask: int | None
    ) -> Tensor:
        y, _ = self._sample(n, context, self.made.context_terms(context), generator, mask)
        return y if self.preprocess is None else self.preprocess.inverse(y)[0]

    def sample_and_log_prob(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mask: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`rsample`, or `sample` where there is none, and the log-densities of its samples, (n,) or (n, C...), in nats.

        Of one mask of Gaussian conditionals at the cost of sampling alone; of others one pass of the network more. The
        log-densities are those of the mixture unless `mask` is given, in training mode too.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.conditional.reparameterised):
            terms = self.made.context_terms(context)
            y, log_prob = self._sample(n, context, terms, generator, mask)
            if log_prob is None:
                log_prob = self._log_prob(y, terms, mask)
            if self.preprocess is None:
                return y, log_prob
            x, log_det = self.preprocess.inverse(y)
            return x, log_prob - log_det

    @torch.no_grad()
    def impute(
        self,
        x: Tensor,
        observed: Tensor,
        n: int | Sequence[int] = 1,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n draws of the missing features given the observed ones: (n, ..., D); n may be a shape.

        The draws are exact for the order in which the observed features come first, each group in the order of the first
        mask. A model of several masks and order="random" is trained for any order; of another, the observed features have to
        come first in the order of its (first) mask. Rows of one pattern go together, at one pass of the network.

        Args:
            x: (..., D); values of missing features are not read.
            observed: bool, (D,) or broadcastable to x.
            context: (..., F), its batch broadcast with x's.
            generator: where the draws come from, on the device of the model; None: torch's own.

        Raises:
            ValueError, TypeError: `observed` does not fit x; the model was not trained for the order that it asks for;
                `preprocess` mixes features.
        """
        x = self._data(x, context)
        observed = expand_observed(observed, x)
        shape = (*sample_shape(n), *x.shape)
        known = self._known(x, observed)
        y = known if self.preprocess is None else self.preprocess(known)[0]
        noise = self._noise((math.prod(sample_shape(n)), math.prod(x.shape[:-1]), self.features), generator)
        given, terms = y.reshape(noise.shape[1:3]).to(noise.dtype), _as_rows(self.made.context_terms(context), x.shape[:-1])

        def draw(rows: Tensor, mask: int | Reordered, known: int) -> Tensor:
            options = {"given": given[rows], "known": known, **self._network(mask, _take(terms, rows))}
            return autoregressive_sample(noise[:, rows], sampler=self.conditional.sampler, **options)

        drawn = _joined(noise[..., 0], [(group[0], draw(*group)) for group in self._pattern_groups(observed)])
        drawn = drawn.view(shape).to(self._sample_dtype)
        if self.preprocess is not None:
            drawn, _ = self.preprocess.inverse(drawn)
        return torch.where(observed, known.to(drawn.dtype), drawn)

    def conditional_log_prob(self, x: Tensor, observed: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(the missing features of x | the observed ones), (...) in nats, of the distribution that `impute` draws from.

        With nothing observed it is `log_prob(x, context, mask=0)`, with everything 0. Arguments and errors are those of
        `impute`; here the missing values are read too.
        """
        x = self._data(x, context)
        observed = expand_observed(observed, x)
        y, log_scales = (x, None) if self.preprocess is None else (self.preprocess(x)[0], self._log_derivatives(x))
        rows = y.reshape(-1, self.features)
        terms = _as_rows(self.made.context_terms(context), x.shape[:-1])
        log_probs = torch.zeros_like(rows, dtype=accumulator(self._weight.dtype))
        for indices, mask, _ in self._pattern_groups(observed):
            outputs = self._outputs(rows[indices], _take(terms, indices), mask)
            log_probs = log_probs.index_copy(0, indices, self.conditional.log_probs(rows[indices], outputs))
        log_probs = log_probs.view(x.shape)
        return torch.where(observed, 0.0, log_probs if log_scales is None else log_probs + log_scales).sum(-1)

    @property
    def _weight(self) -> Tensor:
        return self.made.layers[0].weight

    @property
    def _sample_dtype(self) -> torch.dtype:
        # Half precision does not hold every category.
        return accumulator(self._weight.dtype) if self.discrete else self._weight.dtype

    def _data(self, x: Tensor, context: Tensor | None) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, found {type(x).__name__}")
        _check.features(x, "x", self.features)
        if not (x.is_floating_point() or self.discrete):
            x = x.to(self._weight.dtype)
        return match_context(x, context)

    def _outputs(self, y: Tensor, terms: Tensor | None, mask: int | Reordered) -> Tensor:
        return self.made.evaluate(self.conditional.encode(y, self._weight.dtype), terms, mask)

    def _log_prob(self, y: Tensor, terms: Tensor | None, mask: int | None) -> Tensor:
        """Of what the network sees, y (..., D): under one mask, or of the mixture of all."""
        masks = range(self.masks) if mask is None else (mask,)
        columns = self.conditional.encode(y, self._weight.dtype)
        each = [self.conditional.log_prob(y, self.made.evaluate(columns, terms, m)) for m in masks]
        return each[0] if len(each) == 1 else torch.stack(each).logsumexp(0) - math.log(len(each))

    def _noise(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        # Numbers of half precision would be too coarse to tell probabilities by.
        return self.conditional.noise(shape, accumulator(self._weight.dtype), self._weight.device, generator)

    def _sample(
        self,
        n: int | Sequence[int],
        context: Tensor | None,
        terms: Tensor | None,
        generator: torch.Generator | None,
        mask: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Samples (n, C..., D) of what the network sees, and their log-probabilities where those cost no more."""
        batch = (*sample_shape(n), *(() if context is None else context.shape[:-1]))
        noise = self._noise((*batch, self.features), generator)
        if mask is not None or self.masks == 1:
            return self._sample_mask(noise, terms, mask or 0)
        masks = torch.randint(self.masks, (math.prod(batch), 1), device=noise.device, generator=generator)
        rows, row_terms = noise.view(len(masks), *noise.shape[len(batch) :]), _as_rows(terms, batch)
        groups = [(i, self._sample_mask(rows[i], _take(row_terms, i), int(m))[0]) for m, i in distinct_rows(masks)]
        return _joined(rows[..., 0].to(self._sample_dtype), groups).view(*batch, self.features), None

    def _sample_mask(self, noise: Tensor, terms: Tensor | None, mask: int) -> tuple[Tensor, Tensor | None]:
        y, log_prob = self.conditional.sample(noise, **self._network(mask, terms))
        return y.to(self._sample_dtype), log_prob

    def _network(self, mask: int | Reordered, terms: Tensor | None) -> dict[str, Any]:
        """What an operation that solves the network is told of it under a mask, and of a context."""
        network, plan = self.made.masked(mask, self._weight.device)
        # Under autocast a linear layer answers in another dtype.
        terms = None if terms is None else terms.to(self._weight.dtype)
        return {"network": network, "params": self.made.params, "context_terms": terms, "plan": plan}

    def _pattern_groups(self, observed: Tensor) -> Iterator[tuple[Tensor, int | Reordered, int]]:
        """The rows of each pattern of `observed` (..., D), the mask for it and how many features it observes."""
        for pattern, rows in distinct_rows(observed.reshape(-1, self.features)):
            yield rows, self._pattern_mask(pattern), int(pattern.sum())

    def _pattern_mask(self, pattern: Tensor) -> int | Reordered:
        degrees = observed_first(self.made.degrees, pattern)
        if torch.equal(degrees, self.made.degrees):
            return 0
        if self.cycle is None or self.made.config["order"] != "random":
            raise ValueError(
                "observed: expected the first features in the model's order, which is the only one without several masks of"
                f" order='random'; found features {pattern.nonzero().flatten().tolist()}"
            )
        return self.made.reordered(degrees, self._weight.device)

    def _known(self, x: Tensor, observed: Tensor) -> Tensor:
        """x with numbers in the place of missing features that `preprocess` can take."""
        if self.preprocess is None:
            return torch.where(observed, x, 0)
        self._check_elementwise()
        return torch.where(observed, x, self.preprocess.inverse(torch.zeros_like(x))[0])

    def _log_derivatives(self, x: Tensor) -> Tensor:
        """log|dy_i/dx_i| (..., D) of `preprocess`, each feature by itself."""
        assert self.preprocess is not None
        self._check_elementwise()
        again = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            dtype = accumulator(x.dtype)
            x = x.to(dtype) if again else x.detach().to(dtype, copy=True).requires_grad_()
            (derivatives,) = torch.autograd.grad(self.preprocess(x)[0].sum(), x, create_graph=again)
        return derivatives.abs().log()

    def _check_elementwise(self) -> None:
        for transform in self.preprocess or ():
            if not isinstance(transform, ELEMENTWISE):
                expected = ", ".join(kind.__name__ for kind in ELEMENTWISE)
                raise ValueError(f"preprocess: expected {expected} for conditioning, found {type(transform).__name__}")


def _as_rows(terms: Tensor | None, batch: Sequence[int]) -> Tensor | None:
    """Terms (..., H) of a context at one row for each of a batch; one for all stays (H,)."""
    return terms if terms is None or terms.dim() == 1 else terms.expand(*batch, terms.shape[-1]).reshape(-1, terms.shape[-1])


def _take(terms: Tensor | None, rows: Tensor) -> Tensor | None:
    return terms if terms is None or terms.dim() == 1 else terms[rows]


def _joined(rows: Tensor, groups: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """`rows` (..., rows, D) with those of each group, (indices, values), in their places."""
    if not groups:
        return rows
    return rows.index_copy(-2, torch.cat([indices for indices, _ in groups]), torch.cat([values for _, values in groups], -2))
