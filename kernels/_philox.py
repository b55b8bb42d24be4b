"""Standard normals that are a function of a seed and an index: Philox4x32-10 and Box-Muller, as fastgen.reference.philox."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import log

# Of a word's 2^-32 turns.
_RADIANS = tl.constexpr(1.4629180792671596e-9)


@triton.jit
def _words(index, seed):
    """The four words of group `index` (int64)."""
    low, high = index.to(tl.uint32), (index >> 32).to(tl.uint32)
    zero = low ^ low
    return tl.philox(seed, low, high, zero, zero)


@triton.jit
def _length(word, DTYPE: tl.constexpr):
    return tl.sqrt(-2.0 * log((word.to(DTYPE) + 0.5) * 2.3283064365386963e-10))


@triton.jit
def _direction(word, DTYPE: tl.constexpr):
    """cos and sin of 2 pi (word + 1/2) 2^-32, the nearest quarter turn taken off as an integer."""
    quarter = (word + 0x20000000) >> 30
    rest = (word - (quarter << 30)).to(tl.int32, bitcast=True)
    # In DTYPE: a Python number times a float64 tensor would be rounded to float32 first.
    radians = tl.full((), _RADIANS, DTYPE)
    a = rest.to(DTYPE) * radians + 0.5 * radians
    z = a * a
    if tl.float64 == DTYPE:
        s = _horner_sin(z, DTYPE)
        c = _horner_cos(z, DTYPE)
    else:
        s = (-1.9517299e-4 * z + 8.33217815e-3) * z - 0.166666549
        c = (2.44384518e-5 * z - 1.38873675e-3) * z + 0.0416666469
    sin, cos = a + a * z * s, 1.0 - 0.5 * z + z * z * c
    swap = (quarter & 1) != 0
    x, y = tl.where(swap, sin, cos), tl.where(swap, cos, sin)
    return tl.where(((quarter + 1) & 2) != 0, -x, x), tl.where((quarter & 2) != 0, -y, y)


@triton.jit
def _horner_sin(z, DTYPE: tl.constexpr):
    """(sin a / a - 1) / z, z = a^2, for |a| up to pi / 4, in float64."""
    p = tl.full(z.shape, 1.5896828091379843e-10, DTYPE)
    p = p * z + tl.full((), -2.5050758657397589e-8, DTYPE)
    p = p * z + tl.full((), 2.7557313695263555e-6, DTYPE)
    p = p * z + tl.full((), -0.00019841269829817096, DTYPE)
    p = p * z + tl.full((), 0.0083333333333224248, DTYPE)
    return p * z + tl.full((), -0.16666666666666632, DTYPE)


@triton.jit
def _horner_cos(z, DTYPE: tl.constexpr):
    """(cos a - 1 + z / 2) / z^2, z = a^2, for |a| up to pi / 4, in float64."""
    p = tl.full(z.shape, -1.1359669853221746e-11, DTYPE)
    p = p * z + tl.full((), 2.0875723684856574e-9, DTYPE)
    p = p * z + tl.full((), -2.7557314355251763e-7, DTYPE)
    p = p * z + tl.full((), 2.4801587289491893e-5, DTYPE)
    p = p * z + tl.full((), -0.0013888888888874139, DTYPE)
    return p * z + tl.full((), 0.0416666666666666, DTYPE)


@triton.jit
def normal_tile(seed, first, start, COLUMNS: tl.constexpr, QUADS: tl.constexpr, DTYPE: tl.constexpr):
    """The normals of elements first[:, None] + start + (0 .. COLUMNS - 1), `first` int64.

    QUADS: whether all rows and `start` begin a group of four, so that one call of the generator serves four elements.
    """
    if QUADS:
        group = tl.arange(0, COLUMNS // 4)
        a, b, c, d = _words((first[:, None] + start) // 4 + group[None, :], seed)
        length, (x, y) = _length(a, DTYPE), _direction(b, DTYPE)
        length2, (x2, y2) = _length(c, DTYPE), _direction(d, DTYPE)
        even, odd = tl.join(length * x, length2 * x2), tl.join(length * y, length2 * y2)
        return tl.reshape(tl.join(even, odd), (first.shape[0], COLUMNS))
    else:
        index = first[:, None] + start + tl.arange(0, COLUMNS)[None, :]
        a, b, c, d = _words(index // 4, seed)
        second, odd = (index & 2) != 0, (index & 1) != 0
        x, y = _direction(tl.where(second, d, b), DTYPE)
        return _length(tl.where(second, c, a), DTYPE) * tl.where(odd, y, x)
