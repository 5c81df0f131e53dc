"""The warp against scipy's bilinear sampling at positions computed from the definition, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import ndimage as jax_ndimage
from scipy import ndimage

from focal_jax import warp
from focal_jax.interpolation import interpolate
from focal_jax.simulate import stacks

warped = jax.jit(warp.warp, static_argnames='size')
coverage = jax.jit(warp.coverage, static_argnums=(2, 3), static_argnames='size')
displacement_field = jax.jit(warp.displacement_field, static_argnums=(2, 3, 4))

# Relative field of view, alpha, beta, gamma: still, shifts, zoom in and out, all together, far outside.
MOTIONS = np.array(
  [
    [1.0, 0.0, 0.0, 0.0],
    [1.0, 0.0, 2.3, -1.6],
    [1.05, 0.0, 0.0, 0.0],
    [1.08, 0.031, -3.2, 0.7],
    [1.0, -0.13, 1.4, 2.9],
    [1.02, -0.3, 0.0, -5.5],
    [1.0, 0.0, 100.0, 0.0],
  ]
)
SHAPES = [(24, 32), (21, 33), (22, 27)]


def positions(fov, alpha, beta, gamma, height, width, size=None):
  """Where each pixel of the result is sampled, [2, H, W]: the definition, pixel by pixel."""
  size_y, size_x = size or (height, width)
  where = np.empty((2, height, width))
  for y in range(height):
    for x in range(width):
      u, v = 2 * x / (size_x - 1) - 1, 2 * y / (size_y - 1) - 1
      where[0, y, x] = y - ((size_y // 2) * (fov + alpha - 1) * v + gamma)
      where[1, y, x] = x - ((size_x // 2) * (fov + alpha - 1) * u + beta)
  return where


def reference(image, fov, motion, size=None):
  """One frame [H, W, C] in float64; 'grid-constant' is zero outside, with bilinear weights up to a pixel away."""
  where = positions(fov, *motion, *image.shape[:2], size)
  if size is not None:
    image = image[: int(np.ceil(size[0])), : int(np.ceil(size[1]))]
  channels = [ndimage.map_coordinates(c, where, order=1, mode='grid-constant') for c in np.moveaxis(image, -1, 0)]
  return np.stack(channels, -1)


def frames(shape, channels=2, seed=0):
  """One random frame for each of MOTIONS, with its field of view and motion."""
  images = np.random.default_rng(seed).random((len(MOTIONS), *shape, channels)).astype(np.float32)
  return images, MOTIONS[:, 0].astype(np.float32), MOTIONS[:, 1:].astype(np.float32)


@pytest.mark.parametrize('shape', SHAPES)
def test_matches_bilinear_sampling(shape):
  images, fov, motion = frames(shape)
  got = warped(images, fov, motion)
  for n, image in enumerate(images.astype(np.float64)):
    np.testing.assert_allclose(got[n], reference(image, fov[n], motion[n]), atol=2e-5, err_msg=str(MOTIONS[n]))
  where = jnp.asarray(positions(fov[3], *motion[3], *shape), jnp.float32)
  expected = jax_ndimage.map_coordinates(jnp.asarray(images[3, ..., 0]), where, order=1, mode='constant')
  np.testing.assert_allclose(got[3, ..., 0], expected, atol=2e-5)


def test_leading_axes_are_independent():
  images, fov, motion = frames(SHAPES[0])
  stacked = warped(np.stack([images, images[::-1]]), np.stack([fov, fov[::-1]]), np.stack([motion, motion[::-1]]))
  single = warped(images, fov, motion)
  np.testing.assert_allclose(stacked[0], single, atol=1e-6)
  np.testing.assert_allclose(stacked[1], single[::-1], atol=1e-6)


@pytest.mark.parametrize('shape', SHAPES)
def test_identity_is_exact(shape):
  images, _, _ = frames(shape)
  fov = np.ones(len(images), np.float32)
  np.testing.assert_array_equal(warped(images, fov), images)
  np.testing.assert_array_equal(warped(images, fov, np.zeros((len(images), 3), np.float32)), images)


def test_whole_pixel_shift_moves_the_content_and_leaves_zeros():
  """beta = 3 moves everything 3 px to the right, gamma = -2 moves it 2 px up."""
  images, fov, _ = frames(SHAPES[1])
  motion = np.zeros((len(images), 3), np.float32) + np.float32([0, 3, -2])
  got = np.asarray(warped(images, np.ones_like(fov), motion))
  np.testing.assert_array_equal(got[:, :-2, 3:], images[:, 2:, :-3])
  assert not got[:, -2:].any()
  assert not got[:, :, :3].any()


def test_field_of_view_crop():
  """Without motion a frame twice as wide as the reference shows only the inner part of itself, enlarged."""
  image = np.random.default_rng(1).random((1, 21, 21, 1)).astype(np.float32)
  got = warped(image, np.float32([1.5]))
  np.testing.assert_array_equal(got, warped(image, np.float32([1.5]), np.zeros((1, 3), np.float32)))
  np.testing.assert_allclose(got[0, ..., 0], reference(image[0], 1.5, (0, 0, 0))[..., 0], atol=2e-5)
  # 21 px: dx = 10 * 0.5 u = (x - 10) / 2, so that x samples 10 + (x - 10) / 2: every second one lies on a pixel.
  np.testing.assert_allclose(got[0, ::2, ::2], image[0, 5:16, 5:16], atol=2e-6)
  # The zoom may be in the field of view or in alpha: the result is the same.
  alpha = np.float32([[0.5, 0, 0]])
  np.testing.assert_array_equal(got, warped(image, np.float32([1.0]), alpha))


@pytest.mark.parametrize('size', [(19, 26), (21, 33), (10.5, 16.25)])
def test_padding_beyond_size_does_not_matter(size):
  """Zoom and shift refer to `size`; pixels beyond it count as outside, whatever their values."""
  images, fov, motion = frames(SHAPES[1])
  got = warped(images, fov, motion, size=size)
  for n, image in enumerate(images.astype(np.float64)):
    np.testing.assert_allclose(got[n], reference(image, fov[n], motion[n], size), atol=2e-5, err_msg=str(MOTIONS[n]))
  if size[0] == 19:
    unpadded = warped(images[:, :19, :26], fov, motion)
    np.testing.assert_allclose(got[:, :19, :26], unpadded, atol=1e-5)


@pytest.mark.parametrize('size', [None, (19, 26), (10.5, 16.25)])
def test_coverage_is_the_warp_of_ones(size):
  images, fov, motion = frames(SHAPES[1], channels=1)
  share = coverage(fov, motion, *SHAPES[1], size=size)
  # Positions up to 33 px are multiples of 3.8e-6.
  np.testing.assert_allclose(share, warped(np.ones_like(images), fov, motion, size=size)[..., 0], atol=4e-6)
  assert float(share.min()) >= -1e-5  # rounding
  assert float(share.max()) <= 1 + 1e-5
  if size is None:
    np.testing.assert_array_equal(share[0], 1)
    np.testing.assert_array_equal(share[-1], 0)


def test_sharp_warp():
  """Still frames stay, moved ones keep their detail and their mean."""
  images = np.random.default_rng(1).random((2, 40, 50, 3)).astype(np.float32)
  fov = np.ones(2, np.float32)
  sharp = jax.jit(warp.warp_sharp)
  np.testing.assert_allclose(sharp(images, fov, np.zeros((2, 3), np.float32)), images, atol=1e-5)
  motion = np.float32([[0.0, 3.0, -2.0], [0.0, 0.5, 0.5]])
  whole, half = np.asarray(sharp(images, fov, motion))
  np.testing.assert_allclose(whole[:-2, 3:], images[0, 2:, :-3], atol=1e-5)
  np.testing.assert_allclose(whole[:-2, :3], np.repeat(images[0, 2:, :1], 3, 1), atol=1e-5)  # goes on as its border
  linear = np.asarray(jax.jit(warp.warp)(images, fov, motion))[1]
  # Half a pixel in both directions is the worst: white noise keeps a quarter of its variance, or most of it.
  assert linear[5:-5, 5:-5].var() < 0.3 * images[1].var()
  assert half[5:-5, 5:-5].var() > 0.6 * images[1].var()
  np.testing.assert_allclose(sharp(0 * images + 0.3, fov, motion), 0.3, atol=1e-6)


def test_padding_beyond_size_does_not_matter_to_the_sharp_warp():
  images, fov, motion = map(np.float32, frames((21, 33)))
  padded = np.pad(images, ((0, 0), (0, 11), (0, 5), (0, 0)), constant_values=7)
  sharp = jax.jit(warp.warp_sharp)
  np.testing.assert_allclose(sharp(padded, fov, motion, (21, 33))[:, :21, :33], sharp(images, fov, motion), atol=1e-5)


@pytest.mark.parametrize('shape', [(24, 24), (27, 27), (24, 32), (21, 33)])
def test_composed_motion_samples_where_one_warp_after_the_other_does(shape):
  _, fov, first = frames(shape)
  rng = np.random.default_rng(1)
  second = rng.normal(size=first.shape).astype(np.float32) * [0.05, 2.0, 2.0]
  composed = warp.compose_motion(jnp.asarray(fov), jnp.asarray(first), jnp.asarray(second, jnp.float32), shape)
  lengths = np.array(shape)[:, None, None]
  for n in range(len(fov)):
    between = positions(1.0, *second[n], *shape)
    zoom, shift = fov[n] + first[n, 0] - 1, first[n, 2:0:-1].reshape(2, 1, 1)
    expected = between - (lengths // 2 * zoom * (2 * between / (lengths - 1) - 1) + shift)
    tolerance = 2e-5 if shape[0] == shape[1] else 0.05
    np.testing.assert_allclose(positions(fov[n], *np.asarray(composed[n]), *shape), expected, atol=tolerance)


@pytest.mark.parametrize('size', [None, (19, 26), (10.5, 16.25)])
def test_displacement_field_is_the_definition(size):
  _, fov, motion = frames(SHAPES[1])
  height, width = SHAPES[1]
  field = displacement_field(fov, motion, height, width, size)
  assert field.shape == (len(fov), height, width, 2)
  grid = np.indices((height, width))
  for n in range(len(fov)):
    dy, dx = grid - positions(fov[n], *motion[n], height, width, size)
    np.testing.assert_allclose(field[n], np.stack([dx, dy], -1), atol=2e-5)
  if size is None:  # at the right edge u = 1, in the middle u = 0
    np.testing.assert_allclose(
      field[:, :, -1, 0], (16 * (fov + motion[:, 0] - 1) + motion[:, 1])[:, None] + 0 * grid[1][:, 0], atol=2e-6
    )
    np.testing.assert_allclose(field[:, 10, 16], motion[:, 1:], atol=2e-6)


@pytest.mark.parametrize(
  ('fov', 'motion'),
  [(1.0, (0.0, 0.0, 0.0)), (1.0, (0.0, 2.0, -1.0)), (1.04, (0.013, 0.37, -1.21)), (1.1, (-0.23, -0.6, 0.44))],
  ids=['identity', 'whole pixels', 'zoom in', 'zoom out'],
)
def test_gradients_are_central_differences(fov, motion):
  """At whole-pixel motions the bilinear surface has kinks, where the gradient must be the mean of its two slopes."""
  rng = np.random.default_rng(2)
  image, weight = rng.random((9, 12, 1)), rng.standard_normal((9, 12, 1))

  def loss(image, fov, motion):
    return jnp.sum(weight * warp.warp(image[None], fov[None], motion[None])[0])

  arguments = [jnp.asarray(x, jnp.float32) for x in (image, fov, motion)]
  by_image, by_fov, by_motion = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arguments)

  step = 1e-5
  for i in range(3):
    shift = step * np.eye(3)[i]
    plus, minus = (reference(image, fov, motion + s) for s in (shift, -shift))
    slope = np.sum(weight * (plus - minus)) / (2 * step)
    np.testing.assert_allclose(by_motion[i], slope, rtol=2e-3, atol=2e-3, err_msg=('alpha', 'beta', 'gamma')[i])
  np.testing.assert_allclose(by_fov, by_motion[0], rtol=1e-6)

  impulses = np.eye(9 * 12).reshape(9, 12, 9 * 12)  # every pixel in a channel of its own; the warp is linear in them
  expected = np.sum(weight * reference(impulses, fov, motion), axis=(0, 1)).reshape(9, 12, 1)
  np.testing.assert_allclose(by_image, expected, atol=2e-5)


@functools.cache
def gradients_of_interpolation(axis):
  """Compiled once for all steps."""

  def loss(image, positions, cotangent):
    return jnp.sum(cotangent * interpolate(image, positions[None], image.shape[axis] - 2, axis))

  return jax.jit(jax.grad(loss, (0, 1)))


@pytest.mark.parametrize('axis', [-3, -2])
@pytest.mark.parametrize(
  'step', [1.0, 0.97, 1.3, 2 / 3, 0.5, 0.11, 0.01, 0.0, -1.0, -0.4, 3.7], ids=lambda step: f'step {step}'
)
def test_gradients_of_any_step(step, axis):
  """The transpose looks for the values near a pixel; here are the matrices, made pixel by pixel."""
  rng = np.random.default_rng(4)
  image, cotangent = rng.standard_normal((2, 1, 13, 14, 2)).astype(np.float32)
  length = image.shape[axis]
  # About the middle, so that the ends lie outside if the steps are long, and on a pixel if they are whole.
  positions = np.float32(length // 2 + step * (np.arange(length) - length // 2))
  distance = positions[:, None] - np.arange(length)
  weights = np.maximum(1 - np.abs(distance), 0) * (np.arange(length) < length - 2)
  slopes = np.select([abs(distance) == 1, abs(distance) < 1], [-np.sign(distance) / 2, -np.sign(distance)])
  slopes *= np.arange(length) < length - 2

  by_image, by_positions = gradients_of_interpolation(axis)(image, positions, cotangent)
  image, cotangent, by_image = (np.moveaxis(x[0], axis, 0) for x in (image, cotangent, np.asarray(by_image)))
  np.testing.assert_allclose(by_image, np.tensordot(weights.T, cotangent, 1), atol=1e-5)
  expected = np.sum(np.tensordot(slopes, image, 1) * cotangent, axis=(1, 2))
  np.testing.assert_allclose(by_positions, expected, atol=2e-5)


@pytest.mark.parametrize('size', [32, 33])
def test_undoes_what_the_simulator_records(size):
  """A frame's pixel q shows the reference at recorded(q); aligned x shows the frame at x - dx(x); together x -> x."""
  zoom, shift = jnp.asarray(MOTIONS[:, 0] + MOTIONS[:, 1], jnp.float32), jnp.asarray(MOTIONS[:, 2], jnp.float32)
  recorded = np.asarray(stacks.recorded_positions(zoom, shift, size), np.float64)
  displacement = warp.displacement(jnp.ones_like(zoom), zoom - 1, shift, size, size)
  sampled = np.arange(size) - np.asarray(displacement, np.float64)
  # The recorded position is affine in q, so two pixels determine it everywhere.
  slope = (recorded[:, -1] - recorded[:, 0]) / (size - 1)
  np.testing.assert_allclose(recorded[:, :1] + slope[:, None] * sampled, np.arange(size) + 0 * sampled, atol=1e-4)


@pytest.mark.parametrize(('size', 'out'), [(60, 23), (64, 20), (33, 32), (30, 30)])
def test_reduction_is_that_of_resizing(size, out):
  """Of the first pixels to the first pixels, whatever is behind; JAX's own, which knows no array for a size."""
  images = np.random.default_rng(0).random((2, 64, 3)).astype(np.float32)
  matrix = jax.jit(warp.reduction_matrix, static_argnums=(0, 2))(32, jnp.int32(out), 64, jnp.int32(size))
  reduced = jnp.einsum('oi,bic->boc', matrix, images)
  expected = jax.image.resize(images[:, :size], (2, out, 3), 'linear')
  np.testing.assert_allclose(reduced[:, :out], expected, atol=1e-5)
  assert not reduced[:, out:].any()


@pytest.mark.parametrize('size', [None, (19.5, 30)])
def test_what_is_differentiated_is_the_same(size):
  """On a CPU the warp gathers pixels, and its differentiated form is two matrix products."""
  images = np.random.default_rng(0).random((2, len(MOTIONS), 21, 33, 3)).astype(np.float32)
  fov, motion = (np.tile(part, (2, *[1] * part.ndim)).astype(np.float32) for part in (MOTIONS[:, 0], MOTIONS[:, 1:]))
  motion[1] *= -0.5
  motion[1, 0, 1] = 1e12

  @jax.jit
  def differentiated(images, fov, motion):
    return jax.vjp(lambda images: warp.warp(images, fov, motion, size), images)[0]

  values = np.asarray(differentiated(images, fov, motion))
  np.testing.assert_allclose(warped(images, fov, motion, size=size), values, atol=1e-5)
  assert np.ptp(values) > 0.9


def test_doubling_is_linear():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  expected = jax.image.resize(x, (2, 8, 12, 3), 'linear')
  doubled = jax.jit(lambda x: warp.double(warp.double(x, 1), -2))(x)
  np.testing.assert_allclose(doubled, expected, atol=1e-6)


def test_doubling_of_any_size_is_exported():
  height, width = jax.export.symbolic_shape('16*h, 16*w')
  exported = jax.export.export(jax.jit(lambda x: warp.double(warp.double(x, 1), 2)))(
    jax.ShapeDtypeStruct((2, height // 2, width // 2, 3), jnp.float32)
  )
  assert exported.call(jnp.ones((2, 8, 16, 3))).shape == (2, 16, 32, 3)


@pytest.mark.parametrize('size', [None, (7, 10)])
def test_forward_mode_is_reverse_mode(size):
  """Each Jacobian, and the second derivative, in both modes."""
  rng = np.random.default_rng(3)
  images = jnp.asarray(rng.random((2, 9, 12, 1)), jnp.float32)
  fov = jnp.array([1.03, 1.0])

  def pixels(motion):
    return warp.warp(images, fov, motion, size)[:, ::3, ::4].ravel()

  motion = jnp.asarray(rng.normal(size=(2, 3)) * [0.02, 1.3, 1.3], jnp.float32)
  forward, reverse = (jax.jit(jacobian(pixels))(motion) for jacobian in (jax.jacfwd, jax.jacrev))
  assert np.abs(forward).max() > 0.1
  np.testing.assert_allclose(forward, reverse, atol=1e-5)

  def total(motion):
    return jnp.sum(pixels(motion) ** 2)

  hessians = [jax.jit(outer(jax.grad(total)))(motion) for outer in (jax.jacfwd, jax.jacrev)]
  np.testing.assert_allclose(*hessians, atol=1e-3)
