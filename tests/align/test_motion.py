"""Motions on the host: the same warp as the network's, in any part of a frame; sizes, errors and reuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from local_network import local_model, soft_frames
from scipy import ndimage

import focal_jax
from focal_jax import InputError, warp
from focal_jax.align.motion import align, align_sharp, reduced, scaled_motion, warp_region, warp_region_sharp
from focal_jax.prediction import network_predictor

FOV = np.float32([1.05, 0.97, 1.0])
MOTION = np.float32([[0.01, 13.3, -7.7], [0.002, -5.0, 30.25], [0.0, 0.0, 0.0]])
FOCUS = np.arange(3.0)


@pytest.fixture(scope='module', params=[(96, 131), (75, 60)], ids=['odd width', 'odd height'])
def frames(request):
  return soft_frames(3, *request.param)


def whole_warp(frames):
  """And its coverage, as the networks compute them."""
  pixels, fov, motion = map(jnp.asarray, (frames / np.float32(255), FOV, MOTION))
  size = frames.shape[1:3]
  warped, coverage = jax.jit(lambda *x: (warp.warp(*x), warp.coverage(*x[1:], *size)))(pixels, fov, motion)
  return np.asarray(warped), np.asarray(coverage)


@pytest.mark.parametrize(('corner', 'shape'), [((0, 0), None), ((32, 0), (40, 60)), ((64, 32), (11, 28))])
def test_part_of_a_warped_frame(frames, corner, shape):
  warped, coverage = whole_warp(frames)
  whole_sharp = np.asarray(jax.jit(warp.warp_sharp)(frames / np.float32(255), FOV, MOTION))
  shape = shape or frames.shape[1:3]
  part = np.s_[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
  for n, frame in enumerate(frames):
    values, inside = warp_region(frame, float(FOV[n]), MOTION[n], corner, shape)
    np.testing.assert_allclose(values / 255, warped[n][part], atol=2e-5)
    np.testing.assert_allclose(inside, coverage[n][part], atol=2e-5)
    sharp = warp_region_sharp(frame, float(FOV[n]), MOTION[n], corner, shape)
    np.testing.assert_allclose(sharp / 255, whole_sharp[n][part], atol=2e-5)


def test_alignment_alone(frames):
  warped, expected = whole_warp(frames)
  given = frames.copy()
  aligned, coverage = align(frames, MOTION, FOV)
  assert aligned.dtype == np.uint8
  np.testing.assert_allclose(aligned / 255, warped, atol=0.5 / 255 + 2e-5)
  np.testing.assert_allclose(coverage, expected, atol=2e-5)
  assert coverage.min() == 0
  assert not aligned[coverage == 0].any()
  as_float, _ = align(frames / 255, MOTION, FOV)
  assert as_float.dtype == np.float32
  np.testing.assert_allclose(as_float, warped, atol=2e-5)
  np.testing.assert_array_equal(align(frames, np.zeros((3, 3)))[0], frames)
  np.testing.assert_array_equal(frames, given)


def test_a_motion_of_another_size():
  """The same frames at twice the height and three times the width move alike, in their own pixels."""
  small, large = (61, 41), (122, 123)
  motion = scaled_motion(MOTION, small, large)
  np.testing.assert_allclose(motion, MOTION * [1, 3, 2])
  for axis in (0, 1):  # height, width
    before, after = (
      np.asarray(warp.displacement(*map(jnp.asarray, (FOV, of[:, 0], of[:, 2 - axis])), size[axis], size[axis]))
      for of, size in ((MOTION, small), (motion, large))
    )
    # At either end of the axis, to where pixels are counted from: half of one.
    np.testing.assert_allclose(after[:, [0, -1]], large[axis] / small[axis] * before[:, [0, -1]], atol=0.07)


def test_reduced_frames(frames):
  """Every second pixel with the triangle filter: for linear slopes, the mean of the two."""
  y, x = np.mgrid[:64, :48]
  slopes = np.stack([y / 64, x / 48, (x + y) / 112], -1)[None].repeat(2, 0).astype(np.float32)
  half = reduced(slopes, 32)
  assert half.shape == (2, 32, 24, 3)
  expected = slopes.reshape(2, 32, 2, 24, 2, 3).mean((2, 4))
  np.testing.assert_allclose(half[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-6)
  np.testing.assert_allclose(reduced((slopes * 255).astype(np.uint8), 32), half, atol=1 / 255)
  assert reduced(frames, 200) is frames


@pytest.mark.parametrize('side', [0, 40, 100])
def test_motion_alone_is_the_predictions(frames, side, monkeypatch):
  model = local_model(motion_side_px=side)
  out = model.predict(frames, FOCUS, FOV, 'network')
  motion = model.estimate_motion(frames, FOCUS, FOV, 'network')
  assert np.abs(out.motion[:2]).min(0)[1] > 0.5
  np.testing.assert_allclose(motion, out.motion, rtol=1e-4, atol=1e-6)
  # The memory used at once is limited, whatever the network does.
  monkeypatch.setattr(network_predictor, 'MOTION_SIDE_PX', 20)
  reduced_motion = model.predict(frames, FOCUS, FOV, 'network', tile_px=640).motion
  expected = local_model(motion_side_px=20).predict(frames, FOCUS, FOV, 'network').motion
  np.testing.assert_allclose(reduced_motion, expected, rtol=1e-4, atol=1e-6)
  assert np.abs(expected - out.motion).max() > 0.1


def test_a_given_motion_is_undone(frames):
  model = local_model()
  free = model.predict(frames, FOCUS, FOV, 'network')
  again = model.predict(frames, FOCUS, FOV, motion=free.motion)
  for leaf, same in zip(jax.tree.leaves(again), jax.tree.leaves(free), strict=True):
    np.testing.assert_array_equal(leaf, same)
  out = model.predict(frames, FOCUS, FOV, motion=MOTION)
  np.testing.assert_array_equal(out.motion, MOTION)
  warped, coverage = whole_warp(frames)
  np.testing.assert_allclose(out.coverage, coverage, atol=2e-5)
  np.testing.assert_allclose(out.aligned, warped + (1 - coverage[..., None]) / 2, atol=2e-5)
  # Depth depends only on these frames.
  other = model.predict(out.aligned, FOCUS, align='off')
  np.testing.assert_allclose(out.depth, other.depth, atol=1e-4)
  assert np.abs(out.depth - free.depth).max() > 0.1


@pytest.mark.parametrize(
  'call',
  [
    align,
    lambda frames, motion: local_model().predict(frames, FOCUS, motion=motion),
    lambda frames, motion: focal_jax.load('classical').predict(frames, FOCUS, motion=motion),
  ],
  ids=['alone', 'network', 'classical'],
)
@pytest.mark.parametrize(
  ('motion', 'message'),
  [
    (np.zeros((2, 3)), r'motion: shape \(2, 3\), expected \(3, 3\), zoom, x and y of each frame'),
    (np.zeros(9), r'motion: shape \(9,\), expected'),
    (np.full((3, 3), np.nan), r'motion: \[nan, nan, nan\] at frame 0, expected finite numbers'),
  ],
)
def test_bad_motion(frames, call, motion, message):
  with pytest.raises(InputError, match=message):
    call(frames, motion)


@pytest.mark.parametrize('model', [local_model(), focal_jax.load('classical')], ids=['network', 'classical'])
def test_motion_without_alignment(frames, model):
  with pytest.raises(InputError, match="motion is given and align is 'off', expected one of the two"):
    model.predict(frames, FOCUS, align='off', motion=MOTION)
  with pytest.raises(InputError, match=r'focus: shape \(1,\)'):
    model.estimate_motion(frames, [1.0])


@pytest.mark.parametrize('alpha', [0.03, 0.0, -0.03])
def test_sharp_frames_are_those_of_lanczos(alpha):
  """Same as products with the kernel's weights, except for rounding, wherever the linear warp is inside."""
  rng = np.random.default_rng(0)
  frame = ndimage.gaussian_filter(rng.uniform(0, 255, (61, 84, 3)), (0.7, 0.7, 0)).astype(np.uint8)
  motion = np.array([alpha, 2.3, -4.6], np.float32)
  found, inside = align_sharp(frame, motion, 0.99)
  _, coverage = warp_region(frame, 0.99, motion, (0, 0), frame.shape[:2])
  expected = np.clip(warp_region_sharp(frame, 0.99, motion, (0, 0), frame.shape[:2]), 0, 255)
  # For reduced frames Pillow's kernel is wider.
  largest, mean = (8, 1) if alpha < 0 else (4, 0.5)
  assert np.abs(found - expected)[inside].max() < largest
  assert np.abs(found - expected)[inside].mean() < mean
  assert (found[~inside] == 0).all()
  assert (inside <= (coverage > 0.999)).all()
  assert np.mean(inside != (coverage > 0.999)) < 0.03


def test_sharp_frames_of_no_motion_are_the_same_and_of_a_large_one_black():
  frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  found, inside = align_sharp(frame, np.zeros(3, np.float32))
  np.testing.assert_array_equal(found, frame)
  assert inside.all()
  for motion in ([0, 40, 0], [0, 0, -25], [3, 0, 0]):
    found, inside = align_sharp(frame, np.array(motion, np.float32))
    assert not inside.any()
    assert not found.any()


def test_sharp_frames_that_are_turned():
  """Same as `align`, up to the blur of its linear warp; and the same borders."""
  rng = np.random.default_rng(0)
  frame = np.clip(ndimage.gaussian_filter(rng.normal(128, 400, (90, 120, 3)), (2, 2, 0)), 0, 255).astype(np.uint8)
  motion = np.array([0.02, 3.4, -2.2, 0.05], np.float32)
  found, inside = align_sharp(frame, motion, 1.01)
  expected, coverage = align(frame[None].repeat(2, 0), motion[None].repeat(2, 0), [1.01, 1.01])
  both = inside & (coverage[0] > 0.999)
  assert np.abs(found[both].astype(float) - expected[0][both]).mean() < 2
  assert np.abs(np.roll(found, 1, 0)[both].astype(float) - expected[0][both]).mean() > 6
  assert np.mean(inside != (coverage[0] > 0.999)) < 0.03
  assert (found[~inside] == 0).all()
