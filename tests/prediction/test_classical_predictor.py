"""`focal_jax.load('classical')`: motion against frames moved by scipy, depth of unaligned stacks, borders, failures."""

import jax
import numpy as np
import pytest
from scipy import ndimage

import focal_jax
from focal_jax import InputError, warp
from focal_jax.align.estimate import motion_from_measured
from focal_jax.align.measured import residual_motion
from focal_jax.data.folder import read_stack_folder
from focal_jax.focus import classical, frame_by_frame
from focal_jax.prediction import classical_predictor
from focal_jax.prediction.classical_predictor import ClassicalPredictor

SHAPE = HEIGHT, WIDTH = 192, 256
MARGIN = 24  # px of the scene around the frames
CANVAS = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
FOCUS = np.arange(5.0)
FAR, NEAR = 1.0, 3.0  # depth of the upper and of the lower half
ALPHAS = np.array([0.04, 0.03, 0.02, 0.01, 0.0])  # far frames have the wider view


@pytest.fixture(scope='module')
def model():
  return focal_jax.load('classical')


def two_planes(is_far):
  """Texture of several scales, far or near, in every frame, margin and all: blurred by 1.2 px a unit of defocus."""
  rng = np.random.default_rng(0)
  layers = [ndimage.gaussian_filter(rng.standard_normal((*CANVAS, 3)), (s, s, 0)) for s in (0.7, 2, 4)]
  texture = np.clip(0.5 + 0.1 * sum(layer / layer.std() for layer in layers), 0, 1)

  def seen(focus):
    far, near = (ndimage.gaussian_filter(texture, (s, s, 0)) for s in (1.2 * abs(focus - FAR), 1.2 * abs(focus - NEAR)))
    return np.where(is_far[..., None], far, near)

  return [seen(focus) for focus in FOCUS]


@pytest.fixture(scope='module')
def scene():
  return two_planes((np.arange(CANVAS[0]) < CANVAS[0] // 2)[:, None])


def recorded(scene, fov, motion, shape=SHAPE):
  """Frames of which `warp`, by its definition solved for the place in the reference, makes the scene; uint8."""
  frames = []
  for canvas, view, (alpha, *shift) in zip(scene, fov, motion, strict=True):
    places = []
    for length, move, whole in zip(shape, shift[::-1], canvas.shape, strict=False):
      # Aligned x shows the frame at x - (L // 2) (fov + alpha - 1) u(x) - shift.
      gain = 1 - (length // 2) * (view + alpha - 1) * 2 / (length - 1)
      places.append((np.arange(length) - (length - 1) / 2 + move) / gain + (whole - 1) / 2)
    grid = np.meshgrid(*places, indexing='ij')
    frames.append(
      np.stack([ndimage.map_coordinates(canvas[..., c], grid, order=5, mode='mirror') for c in range(3)], -1)
    )
  return np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)


def moved(alphas, shift=(0.0, 0.0)):
  share = np.linspace(1, 0, len(FOCUS))
  return np.stack([alphas, share * shift[0], share * shift[1]], -1)


def truth():
  return np.broadcast_to(np.where(np.arange(HEIGHT) < HEIGHT // 2, FAR, NEAR)[:, None], SHAPE)


AWAY = np.abs(np.arange(HEIGHT) - HEIGHT / 2) > 16  # rows away from where the planes meet


@pytest.mark.parametrize(
  ('fov', 'motion'),
  [
    (np.ones(5), moved(ALPHAS)),
    (np.array([1.03, 1.02, 1.01, 1.005, 1.0]), moved(ALPHAS / 2, (5.0, -4.0))),
    (np.array([1.04, 1.03, 1.02, 1.01, 1.0]), moved(-2 * ALPHAS, (-3.0, 6.0))),
    (np.array([1.0, 1.01, 1.02, 1.02, 1.02]), moved(np.zeros(5), (2.0, 0.0))),  # the reference is cropped, too
  ],
)
@pytest.mark.parametrize('shape', [SHAPE, (HEIGHT - 1, WIDTH - 1)], ids=['even', 'odd'])
def test_warp_undoes_the_measured_motion(scene, fov, motion, shape):
  frames = recorded(scene, fov, motion, shape)
  found = motion_from_measured(residual_motion(frames), fov)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found[:, 0], motion[:, 0], atol=1e-3)
  np.testing.assert_allclose(found[:, 1:], motion[:, 1:], atol=0.1)
  np.testing.assert_allclose(found[-1], 0, atol=1e-7)
  aligned = jax.jit(warp.warp)(frames / np.float32(255), np.float32(fov), found)
  residual = residual_motion(np.asarray(aligned))
  assert residual.measured.all()
  assert residual.zoom_range < 1.002  # some of it from the borders that the warp left black
  assert residual.rms_px < 0.2


def test_motion_by_hand():
  """Content 2 % larger and the centre at (3, -4): fov + alpha - 1 = -0.02 (255 / 256), the shift in reverse."""
  measured = focal_jax.align.measured.ResidualMotion(
    zoom=np.array([1.02, np.nan, 1.0]),
    shift_px=np.array([[3.0, -4.0], [np.nan, np.nan], [0.0, 0.0]]),
    rotation=np.array([0.0, np.nan, 0.0]),
    quality=np.array([1.0, 0.0, 1.0]),
    zoom_error=np.zeros(3),
    reference=2,
    size=(256, 256),
  )
  motion = motion_from_measured(measured, np.array([1.03, 1.01, 1.0]))
  np.testing.assert_allclose(motion, [[-0.02 * 255 / 256 - 0.03, -3, 4], [0, 0, 0], [0, 0, 0]], atol=1e-7)


def test_alignment_makes_the_depth(model):
  """Frames shift the bars by a third of their width."""
  is_far = (np.arange(CANVAS[1]) - MARGIN) // 64 % 2 == 0
  depth = np.where(is_far, FAR, NEAR)[MARGIN:-MARGIN]
  images = recorded(two_planes(np.broadcast_to(is_far, CANVAS)), np.ones(5), moved(ALPHAS, (20.0, -3.0)))
  middle = np.abs(np.arange(WIDTH) % 64 - 31.5) < 24
  errors = {align: np.abs(model.predict(images, FOCUS, align=align).depth - depth) for align in ('measured', 'off')}
  assert errors['measured'][:, middle].mean() < 0.2
  assert errors['measured'][:, middle].mean() < errors['off'][:, middle].mean() / 2


def test_any_order_and_unit_of_focus(model, scene):
  images = recorded(scene, np.ones(5), moved(ALPHAS))
  out = model.predict(images, FOCUS)
  shuffle = np.array([2, 0, 3, 1, 4])  # the reference stays the last
  other = model.predict(images[shuffle], 10 - 2 * FOCUS[shuffle])
  np.testing.assert_allclose(other.depth, 10 - 2 * out.depth, atol=1e-3)
  np.testing.assert_allclose(other.confidence, out.confidence, atol=1e-4)
  np.testing.assert_allclose(other.motion, out.motion[shuffle], atol=1e-6)
  np.testing.assert_allclose(other.aligned, out.aligned[shuffle], atol=1e-4)
  np.testing.assert_allclose(other.coverage, out.coverage[shuffle], atol=1e-4)


def test_a_motion_once_measured_is_used_again(model, scene):
  """Motion alone is the prediction's; given, it is undone whatever the frames show, in any order of the focus."""
  shuffle = np.array([2, 0, 3, 1, 4])
  fov, focus = np.array([1.03, 1.02, 1.01, 1.005, 1.0])[shuffle], FOCUS[shuffle]
  images = recorded(scene, np.ones(5), moved(ALPHAS))[shuffle]
  out = model.predict(images, focus, fov)
  motion = model.estimate_motion(images, focus, fov)
  np.testing.assert_array_equal(motion, out.motion)
  assert np.abs(motion[:, 0]).max() > 0.01
  again = model.predict(images, focus, fov, motion=motion)
  for leaf, same in zip(jax.tree.leaves(again), jax.tree.leaves(out), strict=True):
    np.testing.assert_array_equal(leaf, same)
  cropped = model.predict(images, focus, fov, motion=np.zeros((5, 3)))
  expected = jax.jit(warp.warp)(images / np.float32(255), np.float32(fov))
  np.testing.assert_allclose(cropped.aligned, expected, atol=1e-5)
  assert not cropped.motion.any()


def test_outside_is_no_sharp_edge(model, scene):
  """Far frames of the narrower view end 2 % of the width inside the reference: black there, and no ridge of depth."""
  images = recorded(scene, np.ones(5), moved(-1.5 * ALPHAS))
  out = model.predict(images, FOCUS)
  covered = out.coverage.min(0)
  outside = covered < 0.999
  assert outside[:, :6].all()
  assert not outside[8:-8, 10:-10].any()
  assert (out.aligned[0][covered == 0] == 0).all()
  rows = AWAY[:, None] & np.ones(SHAPE, bool)
  error = np.abs(out.depth - truth())
  inside = error[rows & ~outside].mean()
  assert inside < 0.1
  assert error[rows & outside].mean() < 2 * inside + 0.05
  assert np.quantile(error[rows & outside], 0.99) < 0.5
  assert out.confidence[rows & outside].mean() < out.confidence[rows & ~outside].mean()
  # The network's input would show one.
  black = np.abs(np.asarray(classical.depth_from_focus(out.aligned, np.float32(FOCUS))[0]) - truth())
  assert black[rows & outside].mean() > 4 * error[rows & outside].mean()


def test_frames_that_cannot_be_measured_are_aligned_by_metadata(model, scene):
  fov = np.array([1.04, 1.03, 1.02, 1.01, 1.0])
  flat = np.full((5, *SHAPE, 3), 90, np.uint8)
  out = model.predict(flat, FOCUS, fov)
  assert not out.motion.any()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
  np.testing.assert_array_equal(out.confidence, 0)
  np.testing.assert_allclose(out.depth, FOCUS[2], atol=1e-5)  # the middle frame
  images = recorded(scene, fov, np.zeros((5, 3)))
  images[0] = 90
  out = model.predict(images, FOCUS, fov)
  assert not out.motion[0].any()
  np.testing.assert_allclose(out.motion[1:, 0], 0, atol=1e-3)
  # Where the blank frame is not next to the sharpest one.
  assert np.abs(out.depth - truth())[120:].mean() < 0.1
  # Too small to measure, down to a pixel.
  for size in ((1, 1), (7, 5)):
    tiny = model.predict(np.zeros((2, *size, 3), np.uint8), [0, 1], [1.1, 1.0])
    assert tiny.depth.shape == size
    assert np.isfinite(tiny.depth).all()


def cache_sizes():
  """Memory of all compiled programs."""
  functions = [value for module in (classical_predictor, frame_by_frame) for value in vars(module).values()]
  return [function._cache_size() for function in functions if hasattr(function, '_cache_size')]


@pytest.mark.parametrize('align', ['measured', 'metadata', 'off'])
def test_shapes_types_and_no_second_compilation(model, scene, align):
  images = recorded(scene, np.ones(5), moved(ALPHAS))
  given = images.copy()
  out = model.predict(images, FOCUS, align=align)
  compiled = cache_sizes()
  again = focal_jax.load('classical').predict(images, FOCUS.tolist(), align=align)
  model.predict(255 - images, FOCUS**2 - 1, np.linspace(1.02, 1, 5), align=align)
  assert cache_sizes() == compiled
  for leaf, shape in (
    (out.depth, SHAPE),
    (out.confidence, SHAPE),
    (out.aligned, (5, *SHAPE, 3)),
    (out.coverage, (5, *SHAPE)),
    (out.motion, (5, 3)),
  ):
    assert type(leaf) is np.ndarray
    assert leaf.shape == shape
    assert leaf.dtype == np.float32
  for leaf, same in zip(jax.tree.leaves(out), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(leaf, same)
  assert out.pyramid is None
  assert out.weights is None
  assert FOCUS.min() <= out.depth.min() <= out.depth.max() <= FOCUS.max()
  for share in (out.confidence, out.aligned, out.coverage):
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-6
  np.testing.assert_array_equal(images, given)
  if align == 'off':
    np.testing.assert_allclose(out.aligned, images / 255, atol=1e-6)
    assert not out.motion.any()
    assert (out.coverage == 1).all()
  elif align == 'measured':
    as_float = model.predict(images / 255, FOCUS)
    assert np.abs(as_float.depth - out.depth).mean() < 1e-3


NAMES = ('classical', 'classical:tenengrad')


def test_of_many_pixels_frames_are_in_half_precision(model, scene, monkeypatch):
  images = recorded(scene, np.ones(5), moved(ALPHAS))
  expected = model.predict(images, FOCUS)
  monkeypatch.setattr(classical_predictor, 'KEPT_PX', images[..., 0].size - 1)
  out = model.predict(images, FOCUS)
  assert (out.aligned.dtype, out.coverage.dtype, out.depth.dtype) == (np.float16, np.float16, np.float32)
  np.testing.assert_allclose(out.aligned, expected.aligned, atol=1e-3)
  np.testing.assert_allclose(out.depth, expected.depth, atol=1e-4)
  np.testing.assert_allclose(out.confidence, expected.confidence, atol=1e-3)


def test_names_and_measures(scene, tmp_path):
  for measure in classical.MEASURES:
    model = focal_jax.load(f'classical:{measure}')
    assert isinstance(model, ClassicalPredictor)
    assert (model.name, model.description, model.unused) == (f'classical:{measure}', {}, [])
  images = recorded(scene, np.ones(5), moved(ALPHAS))
  default, other = (focal_jax.load(name).predict(images, FOCUS, align='off') for name in NAMES)
  assert not np.allclose(default.depth, other.depth)
  for name in ('classical:sobel', 'classical:'):
    with pytest.raises(InputError, match=f"'{name}', expected classical, .*laplacian or ring_difference or tenengrad"):
      focal_jax.load(name)
  with pytest.raises(InputError, match=r'classical\.npz: no such weights file'):
    focal_jax.load(tmp_path / 'classical.npz')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'images': np.zeros((3, 8, 8), np.uint8)}, r'images: shape \(3, 8, 8\), expected'),
    ({'images': np.zeros((1, 8, 8, 3), np.uint8), 'focus': [1.0]}, 'images: 1 frame, expected at least 2'),
    ({'images': np.full((3, 8, 8, 3), 255.0)}, 'images: float values'),
    ({'focus': [1.0, 2.0]}, r'focus: shape \(2,\), expected \(3,\)'),
    ({'fov': [1.0, 0.0, 1.0]}, 'fov: 0.0 at frame 1'),
  ],
)
def test_bad_arguments(model, arguments, message):
  """The check is the network's (`test_api`)."""
  with pytest.raises(InputError, match=message):
    model.predict(**{'images': np.zeros((3, 8, 8, 3), np.uint8), 'focus': [1, 2, 3]} | arguments)


def test_real_stack(model, shared):
  stack = read_stack_folder(shared / 'data' / 'stacks' / 'balls', max_side=512)
  out = model.predict(stack.images, stack.focus, stack.fov)
  after = residual_motion(out.aligned)  # 1.06 before
  assert after.measured.all()
  assert after.zoom_range < 1.002
  assert after.rms_px < 0.3
  # The front ball, at the lower left, is nearer than the wall at the upper right.
  assert np.median(out.depth[150:, :150]) > np.median(out.depth[:40, 400:]) + 0.03
