"""The all-in-focus image against loops over pixels and a known picture, and at the borders of frames."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from focal_jax import warp
from focal_jax.focus import all_in_focus as module
from focal_jax.focus.all_in_focus import Fusion, all_in_focus, plain_detail, ranks_of, sharp_ranks
from focal_jax.stack import Prediction

SHAPE = FRAMES, HEIGHT, WIDTH = 4, 12, 17
warped = jax.jit(warp.warp)
coverage_of = jax.jit(warp.coverage, static_argnums=(2, 3))


def prediction(rng, *, depth=None, weights=None, coverage=None, aligned=None):
  coverage = np.ones(SHAPE, np.float32) if coverage is None else coverage
  if aligned is None:
    aligned = rng.random((*SHAPE, 3), np.float32) * coverage[..., None]
  depth = np.zeros(SHAPE[1:], np.float32) if depth is None else depth.astype(np.float32)
  motion = np.zeros((FRAMES, 3), np.float32)
  return Prediction(depth, np.ones_like(depth), aligned, coverage, motion, weights=weights)


def distribution(rng):
  weights = rng.random(SHAPE, np.float32) ** 4
  return weights / weights.sum(0)


def detail_of(frame):
  """By SciPy: the mean absolute Laplacian of luminance around each pixel."""
  luma = frame @ np.array([0.299, 0.587, 0.114])
  return ndimage.gaussian_filter(np.abs(ndimage.laplace(luma, mode='nearest')), 1.5, mode='nearest', radius=4)


@pytest.mark.parametrize('focus', [[0.0, 1.0, 2.0, 3.0], [4.0, 2.0, 1.0, 0.5], [2.0, 0.5, 4.0, 1.0]])
@pytest.mark.parametrize('with_weights', [False, True])
def test_frames_around_the_depth_by_their_detail(focus, with_weights, monkeypatch):
  monkeypatch.setattr(module, 'NEIGHBOURS_PX', 1)
  monkeypatch.setattr(module, 'REACH', (0.3, 0.05))
  rng, focus = np.random.default_rng(0), np.array(focus)
  coverage = (rng.random(SHAPE) < 0.6).astype(np.float32)
  depth = rng.uniform(0.3, 4.5, SHAPE[1:])
  weights = distribution(rng) if with_weights else None
  given = prediction(rng, depth=depth, weights=weights, coverage=coverage)
  image = all_in_focus(given, focus)
  assert image.dtype == np.float32
  rank = np.argsort(np.argsort(focus))
  place = np.interp(depth, np.sort(focus), np.arange(FRAMES))
  peak = rank[weights.argmax(0)] if with_weights else place
  noise = module.NOISE * plain_detail(given.aligned[0])
  details = [detail_of(frame) for frame in given.aligned]
  references = 0
  for i, j in np.ndindex(HEIGHT, WIDTH):
    around = np.s_[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
    low, high = min(place[around].min(), peak[around].min()), max(place[around].max(), peak[around].max())
    part = np.zeros(FRAMES)
    for n in range(FRAMES):
      beyond = max(rank[n] - high, low - rank[n], 0)
      part[n] = coverage[n, i, j] * np.clip(0.5 + 0.5 - beyond, 0, 1) * (details[n][i, j] + noise) ** 12
    expected = part @ given.aligned[:, i, j] / part.sum() if part.sum() else given.aligned[-1, i, j]
    references += part.sum() == 0
    np.testing.assert_allclose(image[i, j], expected, atol=2e-4)
  assert 0 < references < HEIGHT * WIDTH / 4


def test_nearer_to_a_known_picture_than_means_of_frames():
  """A far slope and a near square before it, in noise, by a depth that is wrong by up to half a frame."""
  rng, (height, width), frames = np.random.default_rng(1), (96, 128), 6
  texture = sum(ndimage.gaussian_filter(rng.normal(size=(2, height, width, 3)), (0, s, s, 0)) * s for s in (0.7, 2, 5))
  far, near = np.clip(0.5 + 0.12 * texture / texture.std(), 0, 1)
  square = np.zeros((height, width, 1))
  square[30:70, 40:90] = 1
  slope = np.linspace(0, 3, width)[None].repeat(height, 0)
  truth, depth = far + square * (near - far), np.where(square[..., 0] > 0, 4.5, slope)
  levels = np.arange(0, 6.01, 0.25)
  blurred = [ndimage.gaussian_filter(far, (0.8 * x, 0.8 * x, 0)) for x in levels]

  def frame(focus):
    index = np.rint(np.abs(slope - focus) / 0.25).astype(int)
    behind = np.take_along_axis(np.stack(blurred), index[None, ..., None], 0)[0]
    s = 0.8 * abs(4.5 - focus)
    shown, before = (ndimage.gaussian_filter(x, (s, s, 0)) for x in (square, square * near))
    return np.clip(behind * (1 - shown) + before + rng.normal(0, 0.01, truth.shape), 0, 1)

  aligned = np.stack([frame(focus) for focus in range(frames)]).astype(np.float32)
  wrong = depth + 0.5 * np.sin(np.arange(width) / 7)
  given = Prediction(
    depth=wrong.astype(np.float32),
    confidence=np.ones((height, width), np.float32),
    aligned=aligned,
    coverage=np.ones(aligned.shape[:3], np.float32),
    motion=np.zeros((frames, 3), np.float32),
  )
  place = np.clip(wrong, 0, frames - 1)
  hats = np.maximum(1 - np.abs(np.arange(frames)[:, None, None] - place), 0)
  mean, fused = (hats[..., None] * aligned).sum(0), all_in_focus(given, np.arange(6.0))

  def psnr(image):
    return -10 * np.log10(((image - truth) ** 2).mean())

  def detail(image):
    """Share of the true detail in a picture; noise does not count."""
    shown, there = (ndimage.laplace(x.mean(-1)) for x in (image, truth))
    return (shown * there).sum() / (there**2).sum()

  assert psnr(fused) > psnr(mean) + 1
  assert detail(mean) < detail(fused) - 0.08
  assert detail(fused) < 1.02  # nothing is sharpened


def test_frame_by_frame_with_ranks_of_a_reduced_depth():
  """The same as at once; and where the reduced map is plain, the same as that of the whole one."""
  rng = np.random.default_rng(2)
  whole = prediction(rng, depth=np.full(SHAPE[1:], 1.4))
  reduced = whole.cropped(6, 9)
  focus = np.arange(4.0)
  fusion = Fusion(sharp_ranks(reduced, focus), FRAMES, SHAPE[1:])
  for frame, coverage, rank in zip(whole.aligned, whole.coverage, ranks_of(focus), strict=True):
    fusion.add(frame, coverage > 0.5, rank)
  np.testing.assert_allclose(fusion.picture(whole.aligned[-1]), all_in_focus(whole, focus), atol=1e-6)


def test_plain_detail_is_that_of_the_noise():
  rng = np.random.default_rng(3)
  frame = np.repeat(rng.normal(0.5, 0.02, (240, 320, 1)), 3, -1).astype(np.float32)
  expected = 0.02 * np.sqrt(20) * np.sqrt(2 / np.pi)  # of white noise: the kernel's sum of squares is 20
  assert plain_detail(frame) == pytest.approx(expected, rel=0.3)
  frame[:, :200] += 0.3 * rng.random((240, 200, 1), np.float32)  # texture in most of it
  assert plain_detail(frame) == pytest.approx(expected, rel=0.3)
  assert plain_detail(np.zeros((20, 30, 3), np.uint8)) == module.MIN_NOISE
  assert plain_detail(np.zeros((1, 2, 3), np.uint8)) == module.MIN_NOISE


@pytest.mark.parametrize('outside', [0.0, 0.5])  # of the warp itself, and of a network that eats -1 .. 1
@pytest.mark.parametrize('classical', [False, True])
def test_borders_of_moved_frames_do_not_show(classical, outside):
  """A plain wall stays plain, whatever was shifted out of view, for fractions of a pixel too."""
  rng = np.random.default_rng(1)
  motion = rng.uniform(-3, 3, (4, 3)) * (0.02, 1, 1)
  motion[-1] = 0
  fov, motion = np.ones(4, np.float32), motion.astype(np.float32)
  wall = np.broadcast_to(np.float32((0.2, 0.9, 0.5)), (*SHAPE, 3))
  given = prediction(
    rng,
    depth=rng.uniform(0, 3, SHAPE[1:]),
    weights=None if classical else distribution(rng),
    coverage=np.asarray(coverage_of(fov, motion, HEIGHT, WIDTH)),
    aligned=np.asarray(warped(wall - np.float32(outside), fov, motion)) + np.float32(outside),
  )
  assert given.coverage.min() == 0
  assert ((given.coverage > 0.1) & (given.coverage < 0.9)).any()
  np.testing.assert_allclose(all_in_focus(given, np.arange(4.0)), wall[0], atol=1e-5)


def test_frames_that_do_not_show_a_pixel_have_no_part():
  rng = np.random.default_rng(3)
  coverage = np.ones(SHAPE, np.float32)
  coverage[:-1, 0, 0] = 0  # all but one
  coverage[:, 0, 1] = 0  # all: the reference then
  coverage[:, 0, 2] = 0.9
  given = prediction(rng, depth=np.full(SHAPE[1:], 1.5), coverage=coverage)
  image = all_in_focus(given, np.arange(4.0))
  for j in range(3):
    np.testing.assert_allclose(image[0, j], given.aligned[3, 0, j], atol=1e-6)
  assert np.abs(image - given.aligned[3]).mean() > 0.05


def test_half_precision_as_tiles_have_it():
  rng = np.random.default_rng(4)
  given = prediction(rng, weights=distribution(rng))
  half = given.replace(**{name: getattr(given, name).astype(np.float16) for name in ('aligned', 'coverage', 'weights')})
  image = all_in_focus(half, np.arange(4.0))
  assert image.dtype == np.float32
  np.testing.assert_allclose(image, all_in_focus(given, np.arange(4.0)), atol=2e-3)
