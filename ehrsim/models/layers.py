"""The layers of the models: Flax NNX modules that hold parameters and static numbers only, so that they are pytrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ehrsim.batch import Moment

Array = jax.Array


def along(vector: Array, like: Array) -> Array:
    """`vector` (n,) with as many axes as `like` (..., n): ranks are never promoted silently."""
    return jnp.expand_dims(vector, tuple(range(like.ndim - 1)))


class Linear(nnx.Module):
    """An affine map; weights with variance 1 / inputs (LeCun), `gain` scales them, the bias starts at 0."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, gain: float = 1.0) -> None:
        scale = gain / inputs**0.5
        self.weight = table(inputs, outputs, rng, scale)
        self.bias = constant(0.0, outputs)

    def __call__(self, x: Array) -> Array:
        """(..., inputs) -> (..., outputs)."""
        product = jnp.dot(x, self.weight[...], preferred_element_type=jnp.float32)
        return product + along(self.bias[...], product)


def table(rows: int, width: int, rng: np.random.Generator, scale: float = 0.1) -> nnx.Param[Array]:
    """A table of `rows` embeddings, normal with standard deviation `scale`.

    Drawn on the host: compiling the draws of a whole model takes ten seconds.
    """
    return nnx.Param(jnp.asarray(rng.standard_normal((rows, width), np.float32) * np.float32(scale)))


QUICK = 10.0
"""Some parameters have to become large, and all steps of Adam are of one length: they are taken times this."""


class Constant(nnx.Param[Array]):
    """A parameter that stands for itself and not for a direction: a bias. These are calibrated in the end."""


def constant(value: float, *shape: int) -> Constant:
    """A constant that is `value` everywhere to begin with."""
    return Constant(jnp.asarray(np.full(shape, value, np.float32)))


def added(to: Constant, change: Any) -> Constant:
    """The constant with a change."""
    return Constant(to[...] + jnp.asarray(change, jnp.float32))


def is_constant(model: nnx.Module) -> Any:
    """For each array of a model, in a tree like it, whether it is a constant."""

    def of_variable(variable: nnx.Variable[Array]) -> Any:
        return jax.tree.map(lambda _: isinstance(variable, Constant), variable)

    return jax.tree.map(of_variable, model, is_leaf=lambda node: isinstance(node, nnx.Variable))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)); this form is five times as fast as `jax.nn.softplus` on a CPU."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


Dropout = Callable[[Array], Array]


def kept(x: Array) -> Array:
    """The dropout outside training: nothing is hidden."""
    return x


def dropout(key: Array, rate: float | Array) -> Dropout:
    """Hide each number with chance `rate` and scale the others up (Srivastava et al. 2014); nothing if it is 0.0."""

    def drop(x: Array) -> Array:
        return jnp.where(jax.random.uniform(key, x.shape) < rate, 0.0, x / (1 - rate))

    return kept if isinstance(rate, float) and not rate else drop


class GRU(nnx.Module):
    """A gated recurrent unit (Cho et al. 2014), with the reset gate applied after the recurrent product."""

    def __init__(self, inputs: int, width: int, rng: np.random.Generator) -> None:
        self.width = width
        self.inner = Linear(inputs, 3 * width, rng)
        blocks = [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(3)]
        self.recurrent = nnx.Param(jnp.asarray(np.concatenate(blocks, axis=1), jnp.float32))

    def step(self, h: Array, projected: Array) -> Array:
        """One update of `h` (..., width) with `projected` = inner(x) (..., 3 width)."""
        rec = jnp.dot(h, self.recurrent[...], preferred_element_type=jnp.float32)
        reset_in, update_in, new_in = jnp.split(projected, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(rec, 3, axis=-1)
        reset = jax.nn.sigmoid(reset_in + reset_h)
        update = jax.nn.sigmoid(update_in + update_h)
        new = jnp.tanh(new_in + reset * new_h)
        return (1 - update) * new + update * h

    def scan(self, x: Array, fresh: Array, initial: Array, *, reverse: bool = False) -> Array:
        """States (R, T, width) after each input of `x` (R, T, inputs).

        Where `fresh` (R, T) the state is set to `initial` (R, T, width) before the update.
        """
        projected = self.inner(x)

        def body(h: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            inputs, is_fresh, begin = step
            h = self.step(jnp.where(is_fresh[:, None], begin, h), inputs)
            return h, h

        by_time = (jnp.moveaxis(projected, 1, 0), jnp.moveaxis(fresh, 1, 0), jnp.moveaxis(initial, 1, 0))
        _, states = jax.lax.scan(body, jnp.zeros((x.shape[0], self.width)), by_time, reverse=reverse)
        return jnp.moveaxis(states, 0, 1)


def normalise(x: Array) -> Array:
    """Divide by the root mean square over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


AGE_FEATURES = 17


def age_features(age: Array, year: Array) -> Array:
    """(..., AGE_FEATURES): where in life and in the calendar a moment is.

    Gaussian bumps over the life span, log age, age; years to the end of the data, plain and as exponentials that tell
    the last months from the last years, since most records end with the data.
    """
    centres = jnp.array([0.0, 1.0, 3.0, 6.0, 12.0, 20.0, 30.0, 42.0, 54.0, 66.0, 80.0])
    widths = jnp.array([0.5, 1.0, 2.0, 4.0, 6.0, 9.0, 11.0, 12.0, 12.0, 13.0, 15.0])
    years = age[..., None]
    bumps = jnp.exp(-0.5 * ((years - along(centres, years)) / along(widths, years)) ** 2)
    near = jnp.exp(jnp.minimum(year, 0.0)[..., None] / along(jnp.array([0.25, 1.0, 4.0]), years))
    rest = [jnp.log1p(jnp.maximum(age, 0.0)) / 4.0, age / 50.0, year / 20.0]
    return jnp.concatenate([bumps, near, *(part[..., None] for part in rest)], axis=-1)


_WINDOW_YEARS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 15.0, 20.0, 30.0)
_WINDOW_WIDTHS = (0.3, *[0.6] * 12, 2.0, 4.0, 8.0)
MOMENT_FEATURES = AGE_FEATURES + 2 * (len(_WINDOW_YEARS) + 1) + 2


def moment_features(moment: Moment) -> Array:
    """(..., MOMENT_FEATURES): where in life, in the calendar and in the record a moment is.

    Many records are windows (of an enrolment, of so many years back): when one began, and how long it has lasted, tell
    when it ends. How many steps it has so far, and in how long, tells those who come often.
    """
    parts = [age_features(moment.age, moment.year)]
    for years in (moment.elapsed[..., None], -moment.year[..., None]):
        centres, widths = (along(jnp.array(numbers), years) for numbers in (_WINDOW_YEARS, _WINDOW_WIDTHS))
        parts += [jnp.exp(-0.5 * ((years - centres) / widths) ** 2), jnp.log1p(jnp.maximum(years, 0.0)) / 2.0]
    steps, elapsed = moment.steps[..., None], jnp.maximum(moment.elapsed[..., None], 0.0)
    parts += [jnp.log1p(steps) / 3.0, jnp.log((steps + 0.5) / (elapsed + 0.5)) / 2.0]
    return jnp.concatenate(parts, axis=-1)


PROSPECT_FEATURES = 5


def prospect_features(moment: Moment) -> Array:
    """(..., PROSPECT_FEATURES): what tells whether a code is still to come: the age, and the years that are left.

    These are the years of data, or those to the age of a hundred.
    """
    left = jnp.clip(-moment.year, 0.0, jnp.maximum(100.0 - moment.age, 1.0))
    age = moment.age / 50.0
    return jnp.stack([jnp.ones_like(age), age, age**2, jnp.log1p(left), left / 10.0], axis=-1)


AHEAD_FEATURES = 12


def ahead_features(years: Array) -> Array:
    """(..., AHEAD_FEATURES): how far ahead a moment is, as Gaussian bumps over log years, from 0.5 to 80 years."""
    centres = jnp.linspace(jnp.log(0.5), jnp.log(80.0), AHEAD_FEATURES)
    spread = (jnp.log(80.0) - jnp.log(0.5)) / (AHEAD_FEATURES - 1)
    logs = jnp.log(jnp.maximum(years, 0.1))[..., None]
    return jnp.exp(-0.5 * ((logs - along(centres, logs)) / spread) ** 2)
