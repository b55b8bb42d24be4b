"""Other libraries: their models on fastgen's operations or as flows of fastgen, and flows as distributions of PyTorch.

How an adapter is written. A library has one file here, named in `registry.ADAPTERS`: it alone imports the library, and it ends
with the tuple `ACCELERATED` of its accelerated classes. Such a class is importable (for pickles), derived from a mixin and from
the class that it `covers`, exactly that class and no subclass:

    class MaskedLinear(FastMaskedLinear, library.MaskedLinear):
        covers = library.MaskedLinear

`accelerate` walks a model from the inside out. It asks `obstacle(module)`, a class method that still sees the library's object,
for a reason to leave it alone (hooks and the like, `conditions.changed`, and structure by attributes), sets `module.__class__`,
and sets it back where `mismatch()` finds other numbers than the library's, as `network.affine_scale_map` does: version numbers
lie. From then on:

- `forward` (and `inverse`, `_call`, whatever the library calls) asks at every call whether the fast way is open:
  `conditions.ordinary` for the tensors, `conditions.hooked` for the modules that it would not call, shapes, training mode.
  Where it is not, `super()` runs: the library's own code, with its dtypes and its errors; likewise where `Planned.pays` says
  that it is faster, for few rows of a network alone with gradients. That is asked first, for it costs least.
- Parameters are read from the modules at every call, `self.weight`, so that functional_call and parametrizations work.
- What a call needs besides is derived state: `_derive()` makes it from the attributes named in `reads` ("mask"), with
  `inside = True` also those of the modules inside; `derived()` returns it, fresh, or None where `_derive` raised ValueError.
  Nothing else is stored on the module: `restore` only sets the class back.

To build on: `linear.FastMaskedLinear` for F.linear(x, weight * mask, bias); `masks.read_network` for the degrees of a whole
network, from its masks, activations and residual connections; `network.Planned` and `network.Call` for running it, forward and
inverse, with the layout of the outputs and the scale map that `network.affine_scale_map` finds; `network.interleaved` for
outputs in blocks; `chain.one_node` for affine transforms in a row with gradients; `beside.Beside` for a
context that the first layer takes side by side with the features; `coupling.Split` for couplings; `activations.activation_of`.
The example is nflows.py with made.py.
"""

from .convert import from_freia, from_nflows, from_normflows, from_pyro, from_zuko
from .distributions import FlowDistribution, FlowTransform, as_distribution, as_transform
from .report import Entry, Report, accelerate_report
from .swap import accelerate, restore

__all__ = [
    "Entry",
    "FlowDistribution",
    "FlowTransform",
    "Report",
    "accelerate",
    "accelerate_report",
    "as_distribution",
    "as_transform",
    "from_freia",
    "from_nflows",
    "from_normflows",
    "from_pyro",
    "from_zuko",
    "restore",
]
