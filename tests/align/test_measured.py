"""Residual motion: known motions of synthetic frames under different blur, failures, and stacks of real cameras."""

import numpy as np
import pytest
from scipy import ndimage, signal

from focal_jax.align.measured import residual_motion
from focal_jax.align.motion import rotate_back
from focal_jax.data.folder import read_stack_folder

HEIGHT, WIDTH = 320, 480
MARGIN = 48  # px of texture around the frames, so that they show picture up to their borders
STILL = (1.0, 0.0, 0.0)


def texture(seed, size=(HEIGHT, WIDTH)):
  """Noise of several scales, 0 .. 1, `MARGIN` larger than `size` on every side."""
  rng = np.random.default_rng(seed)
  noise = [rng.standard_normal([n + 2 * MARGIN for n in size]) for _ in range(4)]
  layers = [ndimage.gaussian_filter(x, sigma) for x, sigma in zip(noise, (1.2, 2.5, 5, 10), strict=True)]
  picture = sum(layer / layer.std() for layer in layers)
  return np.clip(0.5 + 0.08 * picture, 0, 1)


def frame_of(canvas, motion=STILL, blur_px=0.0, noise=0.0):
  """What a frame that moved by (zoom, x, y) shows of the canvas, blurred, [H, W, 3]."""
  zoom, x, y = motion
  blurred = ndimage.gaussian_filter(canvas, blur_px) if blur_px else canvas
  centre = (np.array(canvas.shape) - 1) / 2
  moved = ndimage.affine_transform(
    blurred, [1 / zoom, 1 / zoom], centre - (centre + np.array([y, x])) / zoom, order=5, mode='mirror'
  )
  inner = moved[MARGIN:-MARGIN, MARGIN:-MARGIN]
  inner = inner + noise * np.random.default_rng(int(1000 * blur_px)).standard_normal(inner.shape)
  return np.repeat(np.clip(inner, 0, 1)[..., None], 3, -1)


def to_uint8(frames):
  return np.round(np.stack(frames) * 255).astype(np.uint8)


@pytest.mark.parametrize(
  ('motion', 'blur_px', 'noise'),
  [
    ((0.95, 0.0, 0.0), (0.0, 4.0), 0.0),
    ((1.06, 0.0, 0.0), (4.0, 0.0), 0.0),
    ((1.06, -6.0, 9.0), (2.0, 3.0), 0.01),
    ((0.97, 15.0, -4.0), (4.0, 1.0), 0.0),
    ((1.0, -15.0, 15.0), (1.0, 2.0), 0.01),
    ((1.002, 0.3, -0.7), (0.0, 3.0), 0.02),
  ],
)
def test_known_motion_of_a_pair_that_is_blurred_differently(motion, blur_px, noise):
  canvas = texture(1)
  frames = [frame_of(canvas, motion, blur_px[0], noise), frame_of(canvas, STILL, blur_px[1], noise)]
  found = residual_motion(to_uint8(frames))
  assert found.zoom[0] == pytest.approx(motion[0], abs=1e-3)
  np.testing.assert_allclose(found.shift_px[0], motion[1:], atol=0.1)
  assert found.quality[0] > 0.5
  assert abs(found.zoom[0] - motion[0]) < 5 * found.zoom_error[0] + 1e-4
  assert (found.zoom[1], *found.shift_px[1], found.quality[1], found.zoom_error[1]) == (1, 0, 0, 1, 0)


def turned(frames, degrees):
  """Frames [N, H, W, 3] whose content is turned clockwise about the centre."""
  turn = [
    ndimage.rotate(f, -d, axes=(1, 0), reshape=False, order=3, mode='mirror')
    for f, d in zip(frames, degrees, strict=True)
  ]
  return np.clip(np.stack(turn), 0, 1)


@pytest.mark.parametrize('degrees', [-3.0, -0.4, 0.05, 1.0, 3.0])
def test_known_rotation_of_a_pair_that_is_blurred_differently(degrees):
  canvas = texture(4)
  frames = turned([frame_of(canvas, (1.02, 3.0, -2.0), 2.0), frame_of(canvas)], (degrees, 0))
  found = residual_motion(to_uint8(frames))
  assert np.rad2deg(found.rotation[0]) == pytest.approx(degrees, abs=0.03)
  assert found.zoom[0] == pytest.approx(1.02, abs=1e-3)
  # The content shifts first, and then turns with the frame.
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  np.testing.assert_allclose(found.shift_px[0], (3 * cos + 2 * sin, 3 * sin - 2 * cos), atol=0.15)


def test_rotations_add_up_along_the_chain():
  canvas = texture(5)
  degrees = np.array([2.5, 1.5, 1.0, 0.0])
  frames = turned([frame_of(canvas, STILL, blur) for blur in (3, 2, 1, 0)], degrees)
  found = residual_motion(to_uint8(frames))
  np.testing.assert_allclose(np.rad2deg(found.rotation), degrees, atol=0.05)
  assert np.rad2deg(found.rotation_range) == pytest.approx(2.5, abs=0.05)
  y, x = (np.arange(n) - (n - 1) / 2 for n in (HEIGHT, WIDTH))
  chord = 2 * np.sin(np.deg2rad(2.5) / 2)
  assert found.displacement_px[0] == pytest.approx(chord * np.sqrt(np.mean(x**2) + np.mean(y**2)), abs=0.15)


def test_frames_that_are_turned_back_are_upright():
  canvas = texture(8)
  frames = turned([frame_of(canvas, (1.02, 5.0, -3.0), 1.0), frame_of(canvas)], (2.0, 0))
  images = to_uint8(frames)
  found = residual_motion(images)
  upright, coverage = rotate_back(images, found.rotation)
  again, expected = residual_motion(upright), found.without_rotation()
  assert abs(np.rad2deg(again.rotation[0])) < 0.03
  np.testing.assert_allclose(again.shift_px[0], expected.shift_px[0], atol=0.1)
  np.testing.assert_allclose(again.shift_px[0], (5.0, -3.0), atol=0.15)
  np.testing.assert_array_equal(upright[1], images[1])
  assert coverage[1].min() == 1
  corner = ndimage.rotate(np.ones((HEIGHT, WIDTH)), 2.0, axes=(1, 0), reshape=False, order=1)
  differs = np.abs(coverage[0] - corner) > 0.01  # along the border only, by where a pixel is taken to end
  assert ndimage.binary_erosion(differs, np.ones((3, 3))).sum() == 0
  assert differs.mean() < 0.02


@pytest.mark.parametrize(('zoom', 'end'), [(0.98, 'last'), (1.02, 'first'), (1.0005, None)])
def test_the_larger_end_of_a_sweep_is_the_nearer_one(zoom, end):
  canvas = texture(9)
  frames = [frame_of(canvas, (zoom ** (n / 2), 0.0, 0.0), n) for n in (2, 1, 0)]
  assert residual_motion(to_uint8(frames)).near_end() == end


@pytest.mark.parametrize('odd', ['black', 'another picture'])
@pytest.mark.parametrize('place', [0, 2, 4])
def test_reference_is_a_frame_that_can_be_compared(odd, place):
  canvas = texture(6)
  frames = [frame_of(canvas, (1.0, 2.0 * n, 0.0), 0.5 * n) for n in range(4)]
  frames.insert(place, np.zeros_like(frames[0]) if odd == 'black' else frame_of(texture(7)))
  found = residual_motion(to_uint8(frames), elsewhere=True)
  assert found.reference == (4 if place < 4 else 3)
  np.testing.assert_array_equal(found.measured, [n != place for n in range(5)])
  steps = np.diff(found.shift_px[found.measured, 0])
  np.testing.assert_allclose(steps, 2.0, atol=0.1)


def test_sweep_is_chained_to_any_reference():
  motions = np.array([(0.95, 8, -5), (0.968, 4, 1), (0.985, 5, 2), (1, 0, 0), (1.015, -4, 3)], float)
  canvas = texture(2)
  frames = np.stack([frame_of(canvas, m, blur) for m, blur in zip(motions, (4, 3, 1, 0, 2), strict=True)])
  found = residual_motion(frames.astype(np.float32), reference=3)
  np.testing.assert_allclose(found.zoom, motions[:, 0], atol=1e-3)
  np.testing.assert_allclose(found.shift_px, motions[:, 1:], atol=0.1)
  assert found.measured.all()
  assert found.zoom_range == pytest.approx(1.015 / 0.95, abs=1e-3)
  y, x = (np.arange(n) - (n - 1) / 2 for n in (HEIGHT, WIDTH))
  zoom, right, down = motions[0]
  mean_square = np.mean(((zoom - 1) * x + right) ** 2) + np.mean(((zoom - 1) * y + down) ** 2)
  assert found.displacement_px[0] == pytest.approx(np.sqrt(mean_square), abs=0.1)
  assert found.rms_px == pytest.approx(np.sqrt((found.displacement_px**2).sum() / 4))


def test_large_frames_are_measured_in_their_own_pixels():
  canvas = ndimage.zoom(texture(3, (180, 320)), 4, order=3)[:, :, None].repeat(3, -1)
  frames = np.stack([canvas[16:-16, 20:-12], canvas[16:-16, 16:-16]])  # content moves left by 4 px
  found = residual_motion(frames.astype(np.float32))
  assert found.zoom[0] == pytest.approx(1, abs=1e-4)
  np.testing.assert_allclose(found.shift_px[0], (-4, 0), atol=0.1)
  assert found.size == frames.shape[1:3]


def test_identical_frames_have_not_moved():
  frame = to_uint8([frame_of(texture(4))])[0]
  found = residual_motion(np.stack([frame] * 3))
  np.testing.assert_allclose(found.zoom, 1, atol=1e-4)
  np.testing.assert_allclose(found.shift_px, 0, atol=1e-4)
  assert (found.quality == 1).all()
  assert found.zoom_range == pytest.approx(1, abs=1e-4)
  assert found.rms_px == pytest.approx(0, abs=1e-2)


def test_strong_blur_by_a_disc():
  """The blur reverses phases at the finest level, so the coarser level decides."""
  canvas = texture(14)
  y, x = np.mgrid[-7:8, -7:8]
  disc = np.clip(6.5 - np.hypot(x, y), 0, 1)
  blurred = signal.fftconvolve(np.pad(canvas, 7, mode='reflect'), disc / disc.sum(), 'valid')
  motion = (0.97, -3.0, 5.0)
  found = residual_motion(to_uint8([frame_of(canvas, motion), frame_of(blurred)]))
  assert found.zoom[0] == pytest.approx(motion[0], abs=1e-3)
  np.testing.assert_allclose(found.shift_px[0], motion[1:], atol=0.1)


def test_blur_that_depends_on_depth():
  """The left half is in focus in one frame and the right half in the other."""
  canvas = texture(5)
  left = np.arange(WIDTH)[:, None] < WIDTH / 2
  motion = (0.98, 3.0, -2.0)
  far = np.where(left, frame_of(canvas, motion), frame_of(canvas, motion, 4.0))
  near = np.where(left, frame_of(canvas, STILL, 4.0), frame_of(canvas, STILL))
  found = residual_motion(to_uint8([far, near]))
  assert found.zoom[0] == pytest.approx(motion[0], abs=1e-3)
  np.testing.assert_allclose(found.shift_px[0], motion[1:], atol=0.1)


def test_texture_on_a_part_of_the_frame():
  """Votes come only from the textured part; noise elsewhere is not taken for static texture."""
  canvas = texture(6)
  rng = np.random.default_rng(7)
  blank = 0.5 + 0.01 * rng.standard_normal((2, HEIGHT, WIDTH, 1)) + np.zeros(3)
  part = np.arange(WIDTH)[:, None] < 0.5 * WIDTH
  found = residual_motion(
    to_uint8([np.where(part, frame_of(canvas, m), b) for m, b in zip([(1.03, -2, 1), STILL], blank, strict=True)])
  )
  assert found.zoom[0] == pytest.approx(1.03, abs=2e-3)
  np.testing.assert_allclose(found.shift_px[0], (-2, 1), atol=0.3)


@pytest.mark.parametrize('kind', ['flat', 'gradient', 'noise', 'unrelated', 'one edge', 'small'])
def test_motion_that_cannot_be_measured_is_nan(kind):
  rng = np.random.default_rng(8)
  flat = np.full((3, HEIGHT, WIDTH, 3), 0.5)
  frames = {
    'flat': flat,
    'gradient': flat * np.linspace(0.5, 1, WIDTH)[:, None],
    'noise': flat + 0.02 * rng.standard_normal(flat.shape),
    'unrelated': np.stack([frame_of(texture(seed)) for seed in (9, 10, 11)]),
    'one edge': flat + 0.3 * (np.arange(WIDTH) > WIDTH / 3)[:, None],
    'small': flat[:, :20, :20],
  }[kind]
  found = residual_motion(to_uint8(np.clip(frames, 0, 1)))
  assert np.isnan(found.zoom[:-1]).all()
  assert np.isnan(found.shift_px[:-1]).all()
  np.testing.assert_array_equal(found.quality, [0, 0, 1])
  np.testing.assert_array_equal(found.measured, [False, False, True])
  assert np.isnan(found.zoom_range)
  assert np.isnan(found.rms_px)


def test_a_frame_that_shows_nothing_is_passed_over():
  canvas = texture(12)
  frames = [frame_of(canvas, (0.98, 1, 2)), np.full((HEIGHT, WIDTH, 3), 0.5), frame_of(canvas)]
  found = residual_motion(to_uint8(frames))
  np.testing.assert_array_equal(found.measured, [True, False, True])
  assert found.zoom[0] == pytest.approx(0.98, abs=1e-3)
  assert found.zoom_range == pytest.approx(1 / 0.98, abs=1e-3)


def test_one_frame_and_no_such_frame():
  frames = to_uint8([frame_of(texture(13))])
  found = residual_motion(frames)
  assert (found.zoom_range, found.rms_px) == (1, 0)
  with pytest.raises(IndexError):
    residual_motion(frames, reference=1)


def test_real_stacks_before_and_after_their_authors_aligned_them(shared):
  stacks = shared / 'data' / 'stacks'
  before = residual_motion(read_stack_folder(stacks / 'balls').images)
  after = residual_motion(read_stack_folder(stacks / 'balls_aligned').images)
  # The far frame's field of view is the wider: its content is the smaller.
  assert 1 / before.zoom[0] == pytest.approx(1.060, abs=0.005)
  assert before.zoom_range == pytest.approx(1.060, abs=0.005)
  assert after.zoom_range < 1.002
  assert after.rms_px < 1 < 10 < before.rms_px
  assert before.quality.min() > 0.5
  assert after.quality.min() > 0.5


def test_other_real_stacks(shared):
  stacks = shared / 'data' / 'stacks'
  ring = residual_motion(read_stack_folder(stacks / 'ring').images)
  assert 1 / ring.zoom[0] == pytest.approx(0.954, abs=0.002)
  pcb = residual_motion(read_stack_folder(stacks / 'pcb', reverse=True).images)
  assert pcb.measured.all()
  assert (np.diff(pcb.zoom) > 0).all()
