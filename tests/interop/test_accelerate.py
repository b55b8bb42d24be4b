"""What an accelerated module still is: a module like before, to copy, save, move, compile and train."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_same
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

import fastgen

pytest.importorskip("nflows", reason="nflows is not installed")

from nflows import distributions, transforms
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet

D = 5


def autoregressive(seed: int = 0, **options: Any) -> Flow:
    torch.manual_seed(seed)
    options = {"use_residual_blocks": False, **options}
    layers = [transforms.MaskedAffineAutoregressiveTransform(D, 12, **options) for _ in range(2)]
    return Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([D]))


def coupling(seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    layers = [transforms.AffineCouplingTransform([i, 1, 0, 1, 1 - i], lambda a, b: ResidualNet(a, b, 8)) for i in (0, 1)]
    return Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([D]))


@pytest.fixture(params=[autoregressive, coupling], ids=["autoregressive", "coupling"])
def pair(request: pytest.FixtureRequest) -> tuple[Flow, Flow]:
    """A flow as it was, and accelerated."""
    return request.param(), fastgen.accelerate(request.param())


X = torch.randn(7, D, generator=torch.Generator().manual_seed(5))


def made_of(flow: Any) -> Any:
    return flow._transform._transforms[0].autoregressive_net


def agree(found: Any, expected: Any, x: Tensor = X) -> None:
    assert_same([found.log_prob(x), *found._transform.inverse(x)], [expected.log_prob(x), *expected._transform.inverse(x)])


def test_it_is_the_same_model_with_the_same_parameters() -> None:
    flow = autoregressive()
    parameters, optimizer = list(flow.parameters()), torch.optim.Adam(flow.parameters())
    assert fastgen.accelerate(flow) is flow
    assert all(a is b for a, b in zip(flow.parameters(), parameters, strict=True))
    assert isinstance(made_of(flow), transforms.made.MADE)
    before = parameters[0].clone()
    (-flow.log_prob(X).mean()).backward()
    optimizer.step()
    assert not torch.equal(parameters[0], before)


def test_restore_leaves_no_trace(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    assert fastgen.restore(fast) is fast
    for a, b in zip(fast.modules(), flow.modules(), strict=True):
        assert type(a) is type(b) and a.__dict__.keys() == b.__dict__.keys()
    assert_same([fast.log_prob(X)], [flow.log_prob(X)], 0)


def test_a_second_call_changes_nothing(pair: tuple[Flow, Flow]) -> None:
    _, fast = pair
    classes = [type(module) for module in fast.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastgen.accelerate(fast)
    assert [type(module) for module in fast.modules()] == classes


def test_classes_of_the_library_are_not_touched() -> None:
    cls = transforms.MaskedAffineAutoregressiveTransform
    before = dict(vars(cls)), dict(vars(transforms.made.MADE))
    fastgen.accelerate(autoregressive())
    assert before == (dict(vars(cls)), dict(vars(transforms.made.MADE)))
    assert type(autoregressive()._transform._transforms[0]) is cls


def test_copies_are_accelerated_and_apart(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    copied = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    assert [type(m) for m in copied.modules()] == [type(m) for m in fast.modules()]
    agree(copied, flow)


def test_pickles_for_workers(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    agree(pickle.loads(pickle.dumps(fast)), flow)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    agree(torch.load(file, weights_only=False), flow)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts_go_both_ways(pair: tuple[Flow, Flow], assign: bool) -> None:
    flow, fast = pair
    assert list(fast.state_dict()) == list(flow.state_dict())
    other = copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    fast.load_state_dict(other.state_dict(), assign=assign)
    agree(fast, other)
    flow.load_state_dict(fast.state_dict())
    agree(flow, other)


def test_masks_of_a_checkpoint_count() -> None:
    flow, other = autoregressive(random_mask=True), autoregressive(1, random_mask=True)
    assert not torch.equal(made_of(flow).initial_layer.mask, made_of(other).initial_layer.mask)
    fast = fastgen.accelerate(copy.deepcopy(flow))
    fast.load_state_dict(other.state_dict())
    # The library keeps the blocks' degrees beside their masks, which alone count.
    agree(fast, other)
    made_of(fast).initial_layer.mask.fill_(0)
    made_of(other).initial_layer.mask.fill_(0)
    agree(fast, other)


def test_a_part_that_was_exchanged_counts() -> None:
    flow = autoregressive()
    fast = fastgen.accelerate(copy.deepcopy(flow))
    for m in (flow, fast):
        made_of(m).initial_layer = copy.deepcopy(made_of(autoregressive(7)).initial_layer)
    agree(fast, flow)
    for m in (flow, fast):
        made_of(m).blocks[0].activation = torch.tanh
        m._transform._transforms[1].autoregressive_net.blocks[1].activation = nn.Softsign()
    agree(fast, flow)


def test_moves_to_another_dtype_and_device(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    agree(fast.double(), flow.double(), X.double())
    agree(fast.to("cpu", torch.float32), flow.float())
    meta = copy.deepcopy(fast).to("meta")
    assert meta.log_prob(X.to("meta")).is_meta
    meta.to_empty(device="cpu").load_state_dict(fast.state_dict())
    agree(meta, flow)


def test_half_types_and_autocast_are_the_library_s(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    with torch.autocast("cpu", torch.bfloat16):
        assert_same([fast.log_prob(X)], [flow.log_prob(X)], 0.05)
    assert_same([fast.bfloat16().log_prob(X.bfloat16())], [flow.bfloat16().log_prob(X.bfloat16())], 0)


def test_compiles() -> None:
    flow = autoregressive()
    fast = fastgen.accelerate(copy.deepcopy(flow))
    compiled = torch.compile(fast.log_prob, backend="aot_eager", fullgraph=True)
    assert_same([compiled(X)], [flow.log_prob(X)])
    found = torch.autograd.grad(compiled(X).sum(), list(fast.parameters()))
    assert_same(found, torch.autograd.grad(flow.log_prob(X).sum(), list(flow.parameters())))
    inverse = torch.compile(fast._transform.inverse, backend="aot_eager", fullgraph=True)
    assert_same(inverse(X), flow._transform.inverse(X))


def test_couplings_compile() -> None:
    flow = coupling()
    fast = fastgen.accelerate(copy.deepcopy(flow))
    compiled = torch.compile(fast.log_prob, backend="aot_eager", fullgraph=True)
    assert_same([compiled(X)], [flow.log_prob(X)])


class LogProb(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


def test_functional_calls_and_transforms_of_functions(pair: tuple[Flow, Flow]) -> None:
    flow, fast = (LogProb(m) for m in pair)
    parameters = {name: 1.2 * p.detach() for name, p in flow.named_parameters()}
    assert_same([functional_call(fast, parameters, (X,))], [functional_call(flow, parameters, (X,))])

    def of_one(model: nn.Module) -> Callable[..., dict[str, Tensor]]:
        return torch.func.grad(lambda p, x: functional_call(model, p, (x[None],)).sum())

    found = torch.func.vmap(of_one(fast), (None, 0))(parameters, X)
    expected = torch.func.vmap(of_one(flow), (None, 0))(parameters, X)
    assert_same(list(found.values()), list(expected.values()))


def test_second_derivatives(pair: tuple[Flow, Flow]) -> None:
    def second(flow: Flow) -> Tensor:
        x = X.double().requires_grad_()
        (score,) = torch.autograd.grad(flow.double().log_prob(x).sum(), x, create_graph=True)
        return torch.autograd.grad(score.square().sum(), x)[0]

    flow, fast = pair
    assert_same([second(fast)], [second(flow)])


def test_forward_mode_is_the_library_s(pair: tuple[Flow, Flow]) -> None:
    flow, fast = pair
    found, expected = (torch.func.jvp(m.log_prob, (X,), (torch.ones_like(X),)) for m in (fast, flow))
    assert_same(found, expected)


def test_hooks_are_called() -> None:
    flow, fast = autoregressive(), autoregressive()
    made_of(flow).final_layer.register_forward_hook(lambda module, args, output: 2 * output)
    reasons = {e.name: e.reason for e in fastgen.accelerate_report(flow).left}
    network = "_transform._transforms.0.autoregressive_net"
    assert reasons[network] == reasons[f"{network}.final_layer"] == "forward or backward hooks"
    agree(fastgen.accelerate(copy.deepcopy(flow)), flow)
    # One that comes later, on a module that a fused call does not call.
    fastgen.accelerate(fast)
    made_of(fast).final_layer.register_forward_hook(lambda module, args, output: 2 * output)
    agree(fast, flow)
    calls: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: calls.append(module))
    try:
        fast.log_prob(X)
    finally:
        handle.remove()
    assert made_of(fast).final_layer in calls


def test_parametrised_weights_are_read_at_the_call() -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    flow, later = autoregressive(), fastgen.accelerate(autoregressive())
    for m in (flow, later):
        parametrize.register_parametrization(made_of(m).final_layer, "weight", Double())
    agree(later, flow)
    agree(fastgen.accelerate(copy.deepcopy(flow)), flow)


def test_a_model_with_nothing_to_accelerate_is_returned_with_a_warning() -> None:
    flow = autoregressive(use_batch_norm=True)
    made = made_of(flow).blocks[0].batch_norm
    with pytest.warns(UserWarning, match="nothing was replaced in BatchNorm1d"):
        assert fastgen.accelerate(made) is made
    permutation = transforms.ReversePermutation(3)
    with pytest.warns(UserWarning, match=r"ReversePermutation: not covered"):
        fastgen.accelerate(permutation)


@pytest.mark.parametrize("call", [fastgen.accelerate, fastgen.restore, fastgen.accelerate_report])
def test_what_is_no_model_is_refused(call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module.*nflows.*found builtins\.dict"):
        call({})


def test_lists_and_distributions_are_models() -> None:
    flows = [autoregressive(), coupling()]
    assert fastgen.accelerate(flows) is flows
    assert all(fastgen.accelerate_report(flow).replaced for flow in flows)
    normal = torch.distributions.Normal(0.0, 1.0)
    with pytest.warns(UserWarning, match="nothing that accelerate knows"):
        fastgen.accelerate(torch.distributions.TransformedDistribution(normal, [torch.distributions.ExpTransform()]))


def test_the_report_names_every_module() -> None:
    flow = autoregressive()
    assert {e.reason for e in fastgen.accelerate_report(flow).left} == {"accelerate was not called"}
    report = fastgen.accelerate_report(fastgen.accelerate(flow))
    transforms = ["_transform", *(f"_transform._transforms.{i}" for i in (0, 1))]
    assert [e.name for e in report.replaced if e.kind.endswith("Transform")] == transforms
    assert "replaced    2 x nflows.transforms.made.MADE" in str(report)


def test_fifty_layers_are_accelerated_at_once() -> None:
    layers = [transforms.MaskedAffineAutoregressiveTransform(64, 512, num_blocks=1) for _ in range(50)]
    fastgen.accelerate(copy.deepcopy(layers[0]))
    start = time.process_time()
    fastgen.accelerate(nn.ModuleList(layers))
    assert time.process_time() - start < 2  # 0.5 s on a machine with nothing else to do: bench/accelerate.py


def test_importing_fastgen_imports_no_other_library() -> None:
    libraries = {"nflows", "normflows", "zuko", "pyro", "FrEIA"}
    code = f"import fastgen, sys; fastgen.accelerate; print({libraries} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
