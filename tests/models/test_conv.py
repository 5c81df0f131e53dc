"""The fast forms of the convolutions against XLA's native 3-D convolution, values and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from focal_jax.models import conv

FORMS = ('native', 'planes', 'packed')


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def in_all_forms(function):
  """{form: function(*arguments, form)}, all in one program, because compilation takes the time."""
  return jax.jit(lambda *arguments: {form: function(*arguments, form) for form in FORMS})


def compare(function, x, kernel):
  """`function(form)(x, kernel)` in all forms: same result, same gradients."""

  def value_and_gradients(x, kernel, form):
    y, pullback = jax.vjp(function(form), x, kernel)
    return y, *pullback(normal(2, *y.shape))

  results = in_all_forms(value_and_gradients)(x, kernel)
  for form in FORMS[1:]:
    for native, other in zip(results['native'], results[form], strict=True):
      # Relative to the largest: sums of hundreds of products, in another order.
      np.testing.assert_allclose(other, native, atol=2e-6 * np.abs(native).max(), rtol=0, err_msg=form)


@pytest.mark.parametrize('frames', [2, 5])
@pytest.mark.parametrize(
  ('kernel', 'stride', 'dilation'),
  [
    ((3, 3, 3), 1, 1),
    ((3, 3, 3), 2, 1),
    ((1, 3, 3), 1, 1),
    ((1, 3, 3), 2, 1),
    ((1, 1, 1), 1, 1),
    ((1, 1, 1), 2, 1),
    ((3, 1, 1), 1, 1),
    ((1, 9, 9), 1, 2),
    ((7, 7, 7), 2, 1),  # more frames than there may be
  ],
)
def test_conv_forms_agree(kernel, stride, dilation, frames):
  x, weights = normal(0, 2, frames, 8, 12, 3), normal(1, *kernel, 3, 4)
  compare(lambda form: lambda x, w: conv.conv(x, w, stride=stride, dilation=dilation, form=form), x, weights)


@pytest.mark.parametrize(
  ('width', 'channels', 'features'), [(16, 3, 8), (16, 4, 2), (12, 8, 8), (10, 3, 8), (12, 8, 9)]
)
def test_columns_at_once_are_the_columns_one_by_one(width, channels, features):
  """With few channels, eight or two columns of the result are computed at a time, if the width is a multiple."""
  x, weights = normal(0, 1, 2, 6, width, channels), normal(1, 1, 3, 3, channels, features)
  compare(lambda form: lambda x, w: conv.conv(x, w, form=form), x, weights)


@pytest.mark.parametrize('size', [3, 4])
@pytest.mark.parametrize('frames', [2, 4])
def test_conv_transpose_forms_agree(frames, size):
  compare(
    lambda form: lambda x, w: conv.conv_transpose(x, w, form=form),
    normal(0, 2, frames, 3, 5, 3),
    normal(1, 3, size, size, 3, 4),
  )


@pytest.mark.parametrize('size', [3, 4])
@pytest.mark.parametrize('form', FORMS)
def test_conv_transpose_scatters_each_input(form, size):
  """y[2i - 1 + k] += w[k] x[i], frames n - 1 + k, from the definition."""
  x, w = normal(0, 1, 3, 2, 3, 2), normal(1, 3, size, size, 2, 2)
  expected = np.zeros((1, 3, 4, 6, 2))
  for n, i, j, d, a, b in np.ndindex(3, 2, 3, 3, size, size):
    m, y, z = n - 1 + d, 2 * i - 1 + a, 2 * j - 1 + b
    if 0 <= m < 3 and 0 <= y < 4 and 0 <= z < 6:
      expected[0, m, y, z] += x[0, n, i, j] @ w[d, a, b]
  transposed = jax.jit(conv.conv_transpose, static_argnames='form')(x, w, form=form)
  np.testing.assert_allclose(transposed, expected, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_strided_conv_pads_both_sides(form):
  """Stride 2 looks at rows -1, 0, 1 first, as PyTorch with padding 1; JAX's 'SAME' would begin at row 0."""
  x, w = np.zeros((1, 1, 4, 4, 1), np.float32), np.zeros((1, 3, 3, 1, 1), np.float32)
  x[0, 0, 0, 0, 0] = w[0, 1, 1, 0, 0] = 1.0
  y = np.asarray(jax.jit(conv.conv, static_argnames=('stride', 'form'))(x, w, stride=2, form=form))
  assert y.shape == (1, 1, 2, 2, 1)
  assert y[0, 0, 0, 0, 0] == 1.0


def test_pools():
  x = normal(0, 1, 2, 4, 8, 3)
  blocks = x.reshape(1, 2, 2, 2, 4, 2, 3)
  np.testing.assert_array_equal(jax.jit(conv.max_pool)(x), blocks.max((3, 5)))
  np.testing.assert_allclose(jax.jit(conv.average_pool, static_argnums=1)(x, 2), blocks.mean((3, 5)), atol=1e-6)


@pytest.mark.parametrize('frames', [False, True])
@pytest.mark.parametrize('stride', [1, 2])
def test_max_pool3_is_that_of_windows_and_so_is_its_gradient(frames, stride):
  window, padding = (1, 3 if frames else 1, 3, 3, 1), ((0, 0), (int(frames),) * 2, (1, 1), (1, 1), (0, 0))

  def windows(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, stride, stride, 1), padding)

  x = normal(0, 2, 3, 6, 8, 2) - 5  # below 0: zeros beyond the border would win

  def value_and_gradient(function, x):
    y, pullback = jax.vjp(function, x)
    return y, *pullback(normal(1, *y.shape))

  expected, to_input = jax.jit(value_and_gradient, static_argnums=0)(windows, x)
  pool = functools.partial(conv.max_pool3, frames=frames, stride=stride)
  y, gradient = jax.jit(value_and_gradient, static_argnums=0)(pool, x)
  np.testing.assert_array_equal(y, expected)
  np.testing.assert_allclose(gradient, to_input, atol=1e-5)


LAYERS = [
  ((3, 3, 3), {'stride': 1}),
  ((3, 3, 3), {'stride': 2}),
  ((1, 3, 3), {'stride': 2}),
  ((1, 5, 5), {'dilation': 2}),
  ((5, 3, 3), {'stride': 1}),
]


@pytest.mark.parametrize(('kernel', 'arguments'), LAYERS)
def test_forward_mode_is_reverse_mode(kernel, arguments):
  """Tangents of either form, and second derivatives, against XLA's own convolution."""
  x, weights = normal(0, 2, 3, 4, 8, 3), normal(1, *kernel, 3, 4)
  tangents = normal(2, *x.shape), normal(3, *weights.shape)

  def derivatives(x, weights, form):
    def function(x, w):
      return conv.conv(x, w, form=form, **arguments)

    def total(x, w):
      return jnp.sum(function(x, w) ** 3) / 100

    gradient = jax.grad(total, argnums=(0, 1))
    forward_over_reverse = jax.jvp(gradient, (x, weights), tangents)[1]
    reverse_over_reverse = jax.grad(
      lambda x, w: sum(jnp.vdot(a, b) for a, b in zip(gradient(x, w), tangents, strict=True)), argnums=(0, 1)
    )(x, weights)
    return *jax.jvp(function, (x, weights), tangents), *forward_over_reverse, *reverse_over_reverse

  results = in_all_forms(derivatives)(x, weights)
  for form in FORMS[1:]:
    for native, other in zip(results['native'], results[form], strict=True):
      np.testing.assert_allclose(other, native, atol=1e-3 * np.abs(native).max(), err_msg=form)


@pytest.mark.parametrize('batched', [(0, None), (None, 0), (1, 0)])
def test_vmap(batched):
  x, weights = normal(0, 2, 2, 3, 4, 8, 3), normal(1, 2, 3, 3, 3, 3, 4)
  x, weights = x if batched[0] is not None else x[0], weights if batched[1] is not None else weights[0]

  def gradients(x, weights, form):
    def total(x, w):
      return jnp.sum(jnp.sin(conv.conv(x, w, form=form)))

    return jax.vmap(jax.grad(total, argnums=(0, 1)), batched)(x, weights)

  results = in_all_forms(gradients)(x, weights)
  for form in FORMS[1:]:
    for native, other in zip(results['native'], results[form], strict=True):
      np.testing.assert_allclose(other, native, atol=1e-4, err_msg=form)


def test_a_jacobian_in_both_modes():
  x = normal(0, 1, 2, 4, 4, 2)
  weights = normal(1, 3, 3, 3, 2, 3)

  def function(scale):
    y = conv.conv(scale[:, None] * x[..., None, :].sum(-2), jnp.asarray(weights), stride=2, form='planes')
    return conv.conv_transpose(y, jnp.asarray(normal(2, 3, 3, 3, 3, 2)), form='planes').sum((0, 2, 3)).ravel()

  scale = jnp.array([1.0, 2.0]).repeat(2)[:4].reshape(4)
  np.testing.assert_allclose(
    jax.jit(jax.jacfwd(function))(scale), jax.jit(jax.jacrev(function))(scale), rtol=1e-3, atol=1e-3
  )
