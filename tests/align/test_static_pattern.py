"""Static patterns in all frames: with them, motions as put in; without them, nothing is subtracted."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from focal_jax.align.estimate import motion_from_measured
from focal_jax.align.measured import residual_motion
from focal_jax.align.motion import align, align_plane
from focal_jax.align.static_pattern import shows
from focal_jax.prediction.results import in_any, measured_residual, residual_after, static_pattern_masks

SIZE = (240, 320)
FRAMES = 6


def texture(seed, contrast):
  rng = np.random.default_rng(seed)
  layers = [ndimage.gaussian_filter(rng.standard_normal((480, 480)), sigma) for sigma in (0.7, 1.5, 3, 6)]
  picture = sum(layer / layer.std() for layer in layers)
  return 0.5 + contrast * picture / picture.std()


def dust(seed=1, count=60, blur_px=1.8, depth=-0.35):
  rng = np.random.default_rng(seed)
  spots = np.zeros(SIZE)
  spots[rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count)] = 1
  spots = ndimage.gaussian_filter(spots, blur_px)
  return depth * spots / spots.max()


def stack(pattern, step=(0.0, 0.0), zoom=1.0, contrast=0.03, seed=0, canvas=None):
  """uint8 frames of a scene that moves by `step` (x, y) px and grows by `zoom` from each frame to the one before, whose
  focus runs from left to right, and their true zoom and shift.
  """
  rng = np.random.default_rng(seed)
  canvas = texture(seed, contrast) if canvas is None else canvas
  y, x = (np.mgrid[: SIZE[0], : SIZE[1]].T - (np.array(SIZE) - 1) / 2).T
  back = np.arange(FRAMES)[::-1]
  frames = []
  for n, k in enumerate(back):
    middle = (np.array(canvas.shape) - 1) / 2
    places = [(y - k * step[1]) / zoom**k + middle[0], (x - k * step[0]) / zoom**k + middle[1]]
    sharp = ndimage.map_coordinates(canvas, places, order=1, mode='mirror')
    share = np.clip(np.abs(x / SIZE[1] * 2 - (2 * n / (FRAMES - 1) - 1)) / 2, 0, 1)
    blurred = ndimage.gaussian_filter(sharp, 0.6) * (1 - share) + ndimage.gaussian_filter(sharp, 2.5) * share
    frames.append(np.clip(blurred + pattern + rng.normal(0, 0.006, SIZE), 0, 1))
  images = np.round(np.repeat(np.stack(frames)[..., None], 3, -1) * 255).astype(np.uint8)
  return images, zoom**back, back[:, None] * np.array(step)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('pattern', 'step', 'zoom'),
  [
    (dust(), (1.6, 0.0), 1.0),
    (dust(), (-1.5, 2.0), 1.0),
    (dust(), (0.0, 0.0), 1.008),
    (dust(count=250, blur_px=0.3, depth=0.5), (1.0, 0.6), 1.0),  # hot pixels
    (dust(count=25, blur_px=3.0, depth=0.3), (1.6, 0.0), 1.0),
  ],
)
def test_motion_of_the_scene_is_measured_despite_a_static_pattern(pattern, step, zoom):
  images, zooms, shifts = stack(pattern, step, zoom)
  drawn = residual_motion(images, elsewhere=True)
  found = residual_motion(images, elsewhere=True, find_static_pattern=True)
  error, before = (np.abs(one.shift_px - shifts).max() + 160 * np.abs(one.zoom - zooms).max() for one in (found, drawn))
  assert before > 0.5  # so that there is an error to correct
  assert error < min(0.4, before / 2)
  assert found.static_pattern.shape == SIZE
  # The subtracted pattern is the one that was added, except for coarse shading.
  there = np.abs(pattern) > 0.1
  assert np.mean(found.static_pattern[there] * np.sign(pattern[there]) > 0.05) > 0.8
  assert np.mean(np.abs(found.static_pattern) > 0.02) < 0.3


@pytest.mark.parametrize('step', [(0.0, 0.0), (1.6, 0.0), (7.0, 3.0)])
@pytest.mark.parametrize('zoom', [1.0, 1.01])
@pytest.mark.parametrize('contrast', [0.02, 0.1])
def test_no_pattern_is_found_where_nothing_stands_still(step, zoom, contrast):
  images, _, _ = stack(0.0, step, zoom, contrast)
  found, plain = residual_motion(images, find_static_pattern=True), residual_motion(images)
  assert found.static_pattern is None
  np.testing.assert_array_equal(found.shift_px, plain.shift_px)


@pytest.mark.slow
def test_texture_that_looks_static_is_no_pattern():
  """A scale bar pulls the motion hardly, and the texture of this scene more if it is subtracted as a pattern."""
  with Image.open('examples/pcb/pcb_004.jpg') as image:
    canvas = np.asarray(image.convert('L').resize((507, 413), Image.Resampling.BOX)) / 255
  bar = np.zeros(SIZE)
  bar[213:219, 220:300] = 0.6
  images, _, shifts = stack(bar, (1.07, -0.27), canvas=0.45 + 0.12 * (canvas - canvas.mean()) / canvas.std())
  found = residual_motion(images, elsewhere=True, find_static_pattern=True)
  assert np.abs(found.shift_px - shifts).max() < 0.2


def test_a_scene_and_dust_that_both_stand_still():
  images, _, _ = stack(dust())
  assert residual_motion(images, find_static_pattern=True).static_pattern is None


def test_black_frames_and_two_frames():
  for images in (np.zeros((4, *SIZE, 3), np.uint8), stack(dust(), (2.0, 0.0))[0][:2]):
    assert residual_motion(images, find_static_pattern=True).static_pattern is None


def test_residual_motion_is_measured_without_the_static_pattern():
  images, _, shifts = stack(dust(), (1.6, 0.5))
  before = measured_residual(images)
  fov = np.ones(FRAMES)
  motion = motion_from_measured(before, fov)
  aligned, _ = align(images, motion, fov)
  assert before.rms_px == pytest.approx(np.sqrt((shifts[:-1] ** 2).sum(-1).mean()), abs=0.2)
  assert residual_after(aligned, before, motion, fov).rms_px < 0.2
  np.testing.assert_allclose(residual_after(images, before, None, fov).shift_px, before.shift_px, atol=0.1)
  # In the aligned frames dust moves the other way: from its place in the last frame by the motion of the first.
  places = in_any(static_pattern_masks(before, motion, fov, SIZE), SIZE)
  spots = np.abs(dust()) > 0.2
  assert np.mean(places[spots]) > 0.9
  moved = np.roll(spots, (-2, -8), (0, 1))[20:-20, 20:-20]
  assert np.mean(places[20:-20, 20:-20][moved]) > 0.9
  assert np.mean(places) < 0.5


@pytest.mark.parametrize('motion', [(0.02, 3.0, -2.0), (-0.01, -1.0, 4.0, np.deg2rad(3))])
def test_a_plane_is_aligned_as_frames_are(motion):
  plane = ndimage.gaussian_filter(np.clip(texture(0, 0.1)[:200, :300], 0, 1), 1.5).astype(np.float32)
  frames = np.repeat(plane[None, ..., None], 3, -1).repeat(2, 0)
  aligned, coverage = align(frames, np.float32([motion] * 2), [1.1] * 2)
  own = align_plane(plane, np.float32(motion), 1.1)
  inside = ndimage.binary_erosion(coverage[0] == 1, iterations=3)
  assert inside.mean() > 0.7
  # Rotated frames are resampled twice, once by cubic splines.
  np.testing.assert_allclose(own[inside], aligned[0, ..., 0][inside], atol=0.02 if len(motion) > 3 else 1e-4)


Y, X = (np.mgrid[: SIZE[0], : SIZE[1]].T - (np.array(SIZE) - 1) / 2).T
ROUND, CAPTION = np.hypot(X, Y) > 112, Y > 60


def text(size, opacity):
  """Opacity of letters all over the image."""
  image = Image.new('L', SIZE[::-1])
  for n, y in enumerate(range(0, SIZE[0], 2 * size)):
    ImageDraw.Draw(image).text((-size * n, y), 'WATERMARK ' * 6, 255, ImageFont.load_default(size))
  return np.asarray(image) / 255 * opacity


@pytest.mark.parametrize(
  ('opacity', 'colour', 'is_opaque'),
  [
    (1.0 * ROUND, 0.0, True),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        (1.0 * CAPTION, 1 - text(16, 1.0), True),
        (text(24, 0.5), 1.0, False),
        (text(24, 1.0), 0.0, True),
        ((np.random.default_rng(0).random(SIZE) < 0.05) * 1.0, 0.9, True),  # hot pixels
      ]
    ),
  ],
)
def test_motion_despite_a_pattern_in_much_of_the_image(opacity, colour, is_opaque):
  images, zooms, shifts = stack(0.0, (1.6, 0.5), contrast=0.06)
  images = np.round(images * (1 - opacity[..., None]) + 255 * (colour * opacity)[..., None]).astype(np.uint8)
  drawn = residual_motion(images, elsewhere=True)
  found = residual_motion(images, elsewhere=True, find_static_pattern=True)
  error, before = (np.abs(one.shift_px - shifts).max() + 160 * np.abs(one.zoom - zooms).max() for one in (found, drawn))
  assert error < min(0.8, before / 3)
  assert np.isnan(found.static_pattern).any() == is_opaque
  assert np.mean(shows(found.static_pattern)[opacity > 0.4]) > 0.9
  # The border of the aligned frames moves, and counts as little.
  motion = motion_from_measured(found, np.ones(FRAMES))
  aligned, _ = align(images, motion)
  assert residual_after(aligned, found, motion, np.ones(FRAMES)).rms_px < 0.4
