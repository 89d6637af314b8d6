"""Sums of numbers without any rounding: `numerator * 2**-scale`, two whole numbers.

Every finite double is such a number, so sums are exact, and their order does not matter. The scale is that of
the finest number seen; both stay small for readings of like size. Rounding happens once, at the end.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANTISSA_BITS = 53
_HALF_BITS = 26
_HALF_MASK = (1 << _HALF_BITS) - 1


class Exact:
    """An exact sum, which changes as numbers are added.

    >>> total = Exact()
    >>> for number in (0.1, 1e100, -1e100, 0.2): total.add(number)
    >>> total.value() == 0.1 + 0.2
    True
    """

    __slots__ = ("numerator", "scale")

    def __init__(self, numerator: int = 0, scale: int = 0) -> None:
        self.numerator = numerator
        self.scale = scale

    def add(self, value: int | float) -> None:
        """A finite number more."""
        if type(value) is int:
            self.numerator += value << self.scale
            return
        numerator, denominator = value.as_integer_ratio()
        self.add_scaled(numerator, denominator.bit_length() - 1)

    def add_square(self, value: int | float) -> None:
        """Its square more."""
        if type(value) is int:
            self.numerator += value * value << self.scale
            return
        numerator, denominator = value.as_integer_ratio()
        self.add_scaled(numerator * numerator, 2 * (denominator.bit_length() - 1))

    def add_scaled(self, numerator: int, scale: int) -> None:
        """`numerator * 2**-scale` more."""
        if scale > self.scale:
            self.numerator = (self.numerator << scale - self.scale) + numerator
            self.scale = scale
        else:
            self.numerator += numerator << self.scale - scale

    def add_exact(self, other: Exact) -> None:
        """Another sum more."""
        self.add_scaled(other.numerator, other.scale)

    def add_array(self, values: NDArray[np.float64]) -> None:
        """All numbers of an array of finite doubles more: by their mantissas, exponent by exponent."""
        mantissas, exponents = np.frexp(values)
        whole = (mantissas * (1 << _MANTISSA_BITS)).astype(np.int64)
        for exponent in np.unique(exponents).tolist():
            some = whole[exponents == exponent]
            high, low = int((some >> _HALF_BITS).sum()), int((some & _HALF_MASK).sum())
            total, scale = (high << _HALF_BITS) + low, _MANTISSA_BITS - exponent
            if scale < 0:
                total, scale = total << -scale, 0
            self.add_scaled(total, scale)

    def fraction(self) -> Fraction:
        """What it is."""
        return Fraction(self.numerator, 1 << self.scale)

    def value(self) -> int | float:
        """A whole number if it is one, else the nearest double; infinite beyond the largest."""
        low, scale = self.normal()
        return low if scale == 0 else rounded(Fraction(low, 1 << scale))

    def normal(self) -> tuple[int, int]:
        """Numerator and scale in their only shortest form."""
        numerator, scale = self.numerator, self.scale
        if numerator == 0:
            return 0, 0
        zeros = min(scale, (numerator & -numerator).bit_length() - 1)
        return numerator >> zeros, scale - zeros

    def copy(self) -> Exact:
        """Another one of the same value."""
        return Exact(self.numerator, self.scale)


def rounded(exact: Fraction) -> float:
    """The nearest double; infinite beyond the largest."""
    try:
        return float(exact)
    except OverflowError:
        return inf if exact > 0 else -inf


def doubles(values: Any) -> NDArray[np.float64] | None:
    """An array of finite doubles, if it is one and nothing else."""
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and bool(np.isfinite(values).all()):
        return values
    return None
