"""The public interface: shapes, types, errors, padding, compilation, on weights drawn at random."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import focal_jax
from focal_jax import InputError, api
from focal_jax.align.estimate import ALIGNMENTS
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.models.npz_file import save_weights
from focal_jax.models.registry import make_model

DESCRIPTION = {'model': {'channels': 'RGB', 'padding': 'edge'}}


@pytest.fixture(scope='module')
def drawn():
  return init_variables(EndToEnd(), 3)


@pytest.fixture
def variables(drawn):
  """Variables of the published network at random, in mappings that a test may change."""
  return jax.tree.map(lambda leaf: leaf, drawn)


@pytest.fixture(scope='module')
def weights(drawn, tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'random.npz'
  save_weights(path, drawn, DESCRIPTION)
  return path


@pytest.fixture(scope='module')
def model(weights):
  return focal_jax.load(weights)


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 37, 50, 3), np.uint8)


FOCUS = np.array([0.5, 1.0, 3.0])


def test_signatures():
  """Other programs rely on exactly these."""
  assert str(inspect.signature(focal_jax.load)).startswith('(weights: ')
  for model in (focal_jax.Model, focal_jax.ClassicalModel):
    parameters = inspect.signature(model.predict).parameters
    assert list(parameters)[:7] == ['self', 'images', 'focus', 'fov', 'align', 'motion', 'tile_px']
    assert [parameters[name].default for name in ('fov', 'align', 'motion', 'tile_px')] == [
      None,
      'measured',
      None,
      None,
    ]
    assert list(inspect.signature(model.estimate_motion).parameters) == ['self', 'images', 'focus', 'fov', 'align']


@pytest.mark.parametrize('align', ALIGNMENTS)
def test_shapes_types_ranges(model, images, align):
  given = images.copy()
  out = model.predict(images, FOCUS, align=align)
  n, h, w, _ = images.shape
  for leaf, shape in (
    (out.depth, (h, w)),
    (out.confidence, (h, w)),
    (out.aligned, (n, h, w, 3)),
    (out.motion, (n, 3)),
    (out.weights, (n, h, w)),
    (out.coverage, (n, h, w)),
  ):
    assert type(leaf) is np.ndarray
    assert leaf.shape == shape
    assert leaf.dtype == np.float32
  assert [depth.shape for depth in out.pyramid] == [(h, w)] * 4
  assert out.depth.min() >= FOCUS.min()
  assert out.depth.max() <= FOCUS.max()
  for share in (out.confidence, out.aligned, out.coverage):
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-6
  np.testing.assert_allclose(out.weights.sum(0), 1.0, atol=1e-5)
  np.testing.assert_allclose(out.depth, np.tensordot(FOCUS, out.weights, (0, 0)), atol=1e-5)
  np.testing.assert_array_equal(images, given)
  if align == 'off':
    np.testing.assert_allclose(out.aligned, images / 255, atol=1e-6)
    assert not out.motion.any()
  # The caller does not get read-only device memory.
  out.depth.copy()[:] = 0


def test_uint8_equals_float_and_no_second_compilation(model, images):
  first = model.predict(images, FOCUS)
  programs = model._apply._cache_size()
  assert programs > 0
  for _ in range(2):
    model.predict(255 - images, FOCUS + 1, np.array([1.02, 1.01, 1.0]))
  assert model._apply._cache_size() == programs
  as_float = model.predict(images / 255.0, FOCUS)
  np.testing.assert_allclose(as_float.depth, first.depth, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(('padding', 'other'), [('edge', (33, 61)), ('black', (64, 64))])
def test_sizes_that_are_padded_alike_are_compiled_once(tmp_path, padding, other):
  """And what they get is what a network compiled for their size alone gives."""
  depth = {'detection': 'none', 'downsampling': 'pooling'}
  described = {'padding': padding, 'depth': depth, 'align': {'side_px': 40}}
  network = make_model(described)  # without what takes long to compile
  variables = init_variables(network, 3)
  for level in range(3):  # random ones move nothing by as much as a pixel
    motion = variables['params']['alignment'][f'head{level}']['motion']
    motion['kernel'] = 100 * motion['kernel']
  save_weights(tmp_path / 'weights.npz', variables, {'model': described})
  model, rng = focal_jax.load(tmp_path / 'weights.npz'), np.random.default_rng(1)
  fov = np.float32([1.06, 1.02, 1.0])
  model.predict(rng.integers(0, 256, (3, *other, 3), np.uint8), FOCUS, align='network')
  images = rng.integers(0, 256, (3, 37, 50, 3), np.uint8)
  out = model.predict(images, FOCUS, fov, 'network')
  stack = focal_jax.FocalStack(images=images[None] / np.float32(255), focus=FOCUS[None].astype('f4'), fov=fov[None])
  alone = jax.tree.map(lambda x: x[0], jax.jit(network.apply)(variables, jax.tree.map(jnp.asarray, stack)))
  assert np.ptp(out.motion, axis=0).max() > 0.2
  for ours, theirs in zip(jax.tree.leaves(out), jax.tree.leaves(alone), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
  assert model._apply._cache_size() == 1


def test_focus_unit_is_depth_unit(model, images):
  """Depth is a mixture of the focus coordinates: scale and shift go through."""
  out = model.predict(images, FOCUS, align='off')
  other = model.predict(images, 10 * FOCUS - 3, align='off')
  np.testing.assert_allclose(other.depth, 10 * out.depth - 3, atol=1e-4)
  np.testing.assert_allclose(other.confidence, out.confidence, atol=1e-4)


def test_zoom_is_about_the_image_centre_whatever_the_padding(variables, images):
  """37 x 50 is padded to 64 x 64 inside; a frame of wider view must shrink about (18, 24.5) all the same."""
  network = EndToEnd()
  # Heads that answer 0: the motion is the field of view alone.
  for level in (0, 1, 2):
    motion = variables['params']['alignment'][f'head{level}']['motion']
    motion['kernel'], motion['bias'] = jnp.zeros_like(motion['kernel']), jnp.zeros_like(motion['bias'])
  spot = np.full_like(images, 30)
  spot[:, 18:19, 24:26] = 255
  stack = focal_jax.FocalStack(
    images=spot[None] / np.float32(255), focus=FOCUS[None].astype('f4'), fov=np.array([[1.2, 1.1, 1.0]], 'f4')
  )
  aligned = np.asarray(jax.jit(network.apply)(variables, stack).aligned)[0]
  bright = aligned[..., 0] - 30 / 255
  rows, columns = np.arange(37), np.arange(50)
  for frame in bright:
    assert (frame.sum(1) @ rows) / frame.sum() == pytest.approx(18.0, abs=0.05)
    assert (frame.sum(0) @ columns) / frame.sum() == pytest.approx(24.5, abs=0.05)


def test_motion_from_reduced_frames(variables, images):
  """Zoom as found in the reduced frames, shifts enlarged by as much as these were reduced."""
  large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)[None] / np.float32(255)
  fov = np.array([[1.02, 1.01, 1.0]], np.float32)
  stack = jax.tree.map(jnp.asarray, focal_jax.FocalStack(images=large, focus=FOCUS[None].astype('f4'), fov=fov))
  reduced = EndToEnd(motion_side_px=50)
  motion = jax.jit(lambda stack: reduced.apply(variables, stack, method='estimate_motion'))(stack)
  # Halving an image by the triangle filter, independently: weights 1, 3, 3, 1 over 8, per axis, edges renormalised.
  padded = np.pad(large, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
  mass = np.pad(np.ones_like(large), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))

  def halve(x):
    x = sum(w * x[:, :, k : k + 2 * 37 : 2] for k, w in enumerate((1, 3, 3, 1)))
    return sum(w * x[:, :, :, k : k + 2 * 50 : 2] for k, w in enumerate((1, 3, 3, 1)))

  half = halve(padded) / halve(mass)
  whole = jax.jit(lambda stack: EndToEnd().apply(variables, stack, method='estimate_motion'))
  expected = whole(stack.replace(images=jnp.asarray(half)))
  np.testing.assert_allclose(motion, expected * np.array([1, 2, 2]), atol=2e-4)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'images': np.zeros((3, 8, 8), np.uint8)}, r'images: shape \(3, 8, 8\), expected'),
    ({'images': np.zeros((3, 8, 8, 4), np.uint8)}, 'images: shape'),
    ({'images': np.zeros((3, 0, 8, 3), np.uint8)}, 'images: shape'),
    ({'images': np.zeros((1, 8, 8, 3), np.uint8), 'focus': [1.0]}, 'images: 1 frame, expected at least 2'),
    ({'images': np.zeros((3, 8, 8, 3), np.int64)}, 'images: type int64'),
    ({'images': np.full((3, 8, 8, 3), 255.0)}, 'images: float values'),
    ({'images': np.full((3, 8, 8, 3), np.nan)}, 'images: float values'),
    ({'focus': [1.0, 2.0]}, r'focus: shape \(2,\), expected \(3,\)'),
    ({'focus': [1.0, np.inf, 2.0]}, 'focus: inf at frame 1'),
    ({'fov': [1.0, 1.0]}, 'fov: shape'),
    ({'fov': [1.0, np.nan, 1.0]}, 'fov: nan at frame 1'),
    ({'fov': [1.0, 0.0, 1.0]}, 'fov: 0.0 at frame 1'),
  ],
)
def test_bad_arguments(model, arguments, message):
  good = {'images': np.zeros((3, 8, 8, 3), np.uint8), 'focus': FOCUS}
  with pytest.raises(InputError, match=message):
    model.predict(**good | arguments)


def test_bad_weights(tmp_path, variables, weights):
  with pytest.raises(InputError, match='no such weights file'):
    focal_jax.load(tmp_path / 'missing.npz')
  (tmp_path / 'text.npz').write_text('not a zip file')
  with pytest.raises(InputError, match=r'text\.npz: not a readable'):
    focal_jax.load(tmp_path / 'text.npz')
  (tmp_path / 'half.npz').write_bytes(weights.read_bytes()[:100_000])
  with pytest.raises(InputError, match=r'half\.npz: not a readable'):
    focal_jax.load(tmp_path / 'half.npz')
  np.savez(tmp_path / 'foreign.npz', a=np.zeros(3))
  with pytest.raises(InputError, match=r"foreign\.npz: no entry 'description'"):
    focal_jax.load(tmp_path / 'foreign.npz')
  with pytest.raises(InputError, match=r"type '\.h5', expected"):
    focal_jax.load(tmp_path / 'weights.h5')
  del variables['params']['depth']['stem']['conv']
  save_weights(tmp_path / 'short.npz', variables, DESCRIPTION)
  with pytest.raises(InputError, match=r'tensor params/depth/stem/conv/kernel is missing'):
    focal_jax.load(tmp_path / 'short.npz')
  save_weights(tmp_path / 'other.npz', variables, {'model': 'another', 'arguments': {}})
  with pytest.raises(InputError, match="a model 'another'"):
    focal_jax.load(tmp_path / 'other.npz')


def test_weights_by_name(tmp_path, weights, monkeypatch):
  shipped = focal_jax.load()
  assert Path(shipped.name).name == 'simulated.npz'
  assert {focal_jax.load(name).name for name in ('shipped', 'simulated')} == {shipped.name}
  shutil.copy(weights, tmp_path / 'simulated.npz')
  shutil.copy(weights, tmp_path / 'v1.2.npz')  # a name whose end looks like a suffix
  monkeypatch.setattr(api, '_WEIGHTS_FOLDERS', (tmp_path / 'none', tmp_path))
  assert focal_jax.load('v1.2').name == str(tmp_path / 'v1.2.npz')
  assert focal_jax.load('shipped').name == str(tmp_path / 'simulated.npz')
  message = "weights are 'magic', expected one of shipped, simulated, v1.2, classical, classical:MEASURE, or a path to"
  with pytest.raises(InputError, match=message):
    focal_jax.load('magic')
  with pytest.raises(InputError, match=r"runs/magic: weights of type '', expected \.npz or \.pth"):
    focal_jax.load('runs/magic')


PROGRAM = """
import jax, numpy as np
jax.jit(lambda x: x + 1)(1.0)  # compiled before there is a cache
import focal_jax
focal_jax.load('classical').predict(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], align='off')
"""


@pytest.mark.parametrize(
  ('settings', 'folder'),
  [
    ({}, 'cache/focal_jax'),
    ({'JAX_ENABLE_COMPILATION_CACHE': 'false'}, None),
    ({'JAX_COMPILATION_CACHE_DIR': 'elsewhere'}, 'elsewhere'),
  ],
)
def test_a_program_keeps_what_it_compiles(settings, folder, tmp_path):
  """Like the command line, in the user's folder, unless set otherwise."""
  environment = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}
  environment |= {'XDG_CACHE_HOME': str(tmp_path / 'cache'), 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  environment |= {'PYTHONPATH': str(Path(__file__).parents[1])}
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    env=environment | settings,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  kept = {path for path in tmp_path.rglob('*') if path.is_file()}
  assert bool(kept) == (folder is not None)
  assert all(path.is_relative_to(tmp_path / folder) for path in kept)


def test_weights_file_round_trip(drawn, weights):
  from focal_jax.models.npz_file import load_weights

  variables, description = load_weights(weights)
  assert description == DESCRIPTION
  jax.tree.map(np.testing.assert_array_equal, variables, drawn)


def test_weights_that_ship_fit_their_networks():
  """`load` relies on this."""
  found = api.shipped_weights()
  assert found
  for path in set(found.values()):
    variables, description = api.load_weights(path)
    shapes = api.variable_shapes(make_model(api.model_from_description(description)))
    api.check_weights(path, variables, shapes)
