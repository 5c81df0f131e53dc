"""Photographs with depth, cut into layers: they composite to the photograph; hidden parts are filled in correctly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from focal_jax.errors import InputError
from focal_jax.simulate import defocus, layers, scenes

HEIGHT, WIDTH, LAYERS, EDGE_PX, REACH_PX = 48, 65, 4, layers.EDGE_PX, 8
Y, X = np.mgrid[:HEIGHT, :WIDTH]
SQUARE = (abs(Y - 24) < 12) & (abs(X - 32) < 12)
HOLE = (abs(Y - 30) < 5) & (abs(X - 40) < 8)
NAMES = ('ramp', 'holed', 'damaged', 'square', 'steps', 'noise', 'empty')


def inverse_depths():
  """1 / m; `steps` are four squares, one before the other, that fill a layer each."""
  rng = np.random.default_rng(0)
  ramp = 0.5 + X / WIDTH + 0.5 * Y / HEIGHT
  # No square holds the farthest 12 px, so that each is seen all around.
  steps = 0.5 + sum((abs(Y - 24) < 24 - 5 * n) & (abs(X - 32) < 32 - 7 * n) for n in (1, 2, 3))
  square = np.where(SQUARE, 2.0, 0.5)
  return dict(zip(NAMES, (ramp, ramp, ramp, square, steps, rng.uniform(0.5, 2, ramp.shape), ramp), strict=True))


def inputs():
  rng = np.random.default_rng(1)
  rgb = {name: rng.random((HEIGHT, WIDTH, 3)) for name in NAMES}
  rgb['square'] = np.where(SQUARE[..., None], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0])
  depth = {name: 1 / inverse for name, inverse in inverse_depths().items()}
  known = {name: np.ones((HEIGHT, WIDTH), bool) for name in NAMES}
  known['holed'] = ~HOLE
  depth['damaged'] = np.where(HOLE, np.array([np.nan, np.inf, -np.inf, -1, 0])[X % 5], depth['damaged'])
  known['empty'][:] = False
  return rgb, depth, known


def all_in_focus(scene):
  """What a stack hands out as sharp everywhere, in linear light: [3, H, W]."""
  return defocus.compose(defocus.premultiply(scene.colour, scene.alpha, jnp.zeros(()))).swapaxes(0, 1)


@jax.jit
@jax.vmap
def cut_each(rgb, depth, known):
  """The scene, the top position and the composite of each.

  Layers reach behind each other by less than the picture is wide, and positions are known exactly.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(layers, 'REACH_PX', REACH_PX)
    patch.setattr(layers, 'PERCENTILES', (0.0, 100.0))
    scene = layers.scene_from_rgbd(rgb, depth, known, LAYERS)
  return scene, scenes.top_position(scene), all_in_focus(scene)


def arrays(rgb, depth, known):
  return jnp.asarray(rgb, jnp.float32), jnp.asarray(depth, jnp.float32), jnp.asarray(known)


@pytest.fixture(scope='module')
def cut():
  """What `cut_each` gives, by name."""
  results = jax.tree.map(np.asarray, cut_each(*arrays(*(np.stack(list(part.values())) for part in inputs()))))
  return {name: jax.tree.map(lambda x, i=i: x[i], results) for i, name in enumerate(NAMES)}


def expected_position(name):
  inverse = inverse_depths()[name]
  return (inverse - inverse.min()) / (inverse.max() - inverse.min())


@pytest.mark.parametrize('name', NAMES)
def test_composited_it_is_the_photograph(cut, name):
  scene, _, picture = cut[name]
  np.testing.assert_allclose(picture, np.moveaxis(inputs()[0][name], -1, 0) ** 2.2, atol=1e-5)
  assert scene.colour.shape == (LAYERS, 3, HEIGHT, WIDTH)
  for values in jax.tree.leaves(scene):
    assert np.isfinite(values).all()
  assert scene.alpha.min() >= 0
  assert scene.alpha.max() <= 1
  np.testing.assert_array_equal(scene.alpha[0], 1)


@pytest.mark.parametrize('name', ['ramp', 'square', 'steps', 'noise'])
def test_position_is_linear_in_inverse_depth(cut, name):
  """Down to single pixels of noise."""
  scene, top, _ = cut[name]
  np.testing.assert_allclose(top, expected_position(name), atol=1e-5)
  np.testing.assert_array_equal(scene.known, 1)


def test_layers_lie_far_to_near_at_even_distances(cut):
  scene, top, _ = cut['noise']
  for layer in range(LAYERS):
    low, high = layer / LAYERS, (layer + 1 + layers.OVERLAP) / LAYERS
    position = scene.position[layer]
    assert low - 1e-5 <= position.min() < position.max() <= high + 1e-5
    np.testing.assert_array_equal(scene.alpha[layer] > 0.5, np.minimum(top, 0.999) >= low - 1e-6)


@pytest.mark.parametrize('name', ['holed', 'damaged'])
def test_holes_are_filled_and_not_known(cut, name):
  """In a plane, with the plane, nearly; whatever the hole holds."""
  scene, top, _ = cut[name]
  np.testing.assert_array_equal(scene.known, ~HOLE)
  np.testing.assert_allclose(top[~HOLE], expected_position(name)[~HOLE], atol=1e-5)
  np.testing.assert_allclose(top, expected_position(name), atol=0.03)
  np.testing.assert_array_equal(top, cut['holed'][1])


def test_without_any_depth_nothing_is_known(cut):
  scene, top, _ = cut['empty']
  np.testing.assert_array_equal(scene.known, 0)
  np.testing.assert_array_equal(top, top[0, 0])


def test_behind_a_foreground_goes_on_what_is_around_it(cut):
  """A red square before green: green and far behind it, also under its soft edge's inner half."""
  scene, _, _ = cut['square']
  edge = SQUARE ^ ndimage.binary_erosion(SQUARE, np.ones((3, 3)))  # mixed with what is behind
  behind = scene.colour[0][:, SQUARE & ~edge]
  assert behind[1].min() > 0.5 * 0.5**2.2
  assert behind[0].max() < 0.5
  assert np.median(behind[0]) < 0.15
  np.testing.assert_allclose(scene.position[0], 0, atol=1e-5)
  # The square is there and nowhere else, with an edge as wide as was asked for.
  alpha = scene.alpha[-1]
  np.testing.assert_array_equal(alpha > 0.5, SQUARE)
  np.testing.assert_array_equal(alpha[ndimage.binary_erosion(SQUARE, np.ones((3, 3)))], 1)
  assert alpha[~ndimage.binary_dilation(SQUARE, np.ones((3, 3)))].max() == 0
  row = alpha[24].astype(np.float64)
  step = np.diff(row[:32])
  place = np.arange(31)
  variance = step @ place**2 - (step @ place) ** 2
  np.testing.assert_allclose(variance, EDGE_PX**2 / 12, rtol=1e-5)
  assert np.abs(scene.position[-1][alpha > 0] - 1).max() < 1e-5


def test_layers_reach_behind_nearer_ones_and_no_farther(cut):
  """Four squares, one before the other: each is there up to REACH_PX inside the next."""
  scene, top, _ = cut['steps']
  own = [np.isclose(top, n / 3) for n in range(LAYERS)]
  for layer in range(1, LAYERS):
    nearer = np.any(own[layer:], axis=0)
    reached = ndimage.binary_dilation(own[layer], np.ones((2 * REACH_PX + 1,) * 2))
    inside = ndimage.binary_erosion(nearer, np.ones((3, 3)))
    np.testing.assert_array_equal(scene.alpha[layer][inside], reached[inside])
    assert scene.alpha[layer][~ndimage.binary_dilation(nearer, np.ones((3, 3)))].max() == 0


def test_a_slanted_surface_goes_on_into_the_next_layer(cut):
  """With its own colour and position for half a layer, so that blur meets no seam."""
  scene, top, picture = cut['ramp']
  for layer in range(LAYERS):
    goes_on = (top >= layer / LAYERS + 1e-5) & (top < (layer + 1 + layers.OVERLAP) / LAYERS - 1e-5)
    assert goes_on.sum() > 100
    np.testing.assert_allclose(scene.position[layer][goes_on], top[goes_on], atol=1e-6)
    inside = ndimage.binary_erosion(goes_on, np.ones((5, 5)))
    np.testing.assert_allclose(scene.alpha[layer][inside], 1, atol=1e-6)
    seen = inside & (top < (layer + 1) / LAYERS)
    np.testing.assert_allclose(scene.colour[layer][:, seen], picture[:, seen], atol=1e-5)


@pytest.mark.parametrize('percentiles', [(0.0, 100.0), (0.5, 99.5), (10.0, 80.0)])
def test_percentiles(percentiles):
  """As by sorting, without what is not known."""
  depth = np.random.default_rng(3).gamma(2.0, 1.0, (HEIGHT, WIDTH)) + 0.3
  far, near = np.percentile(1 / depth[~HOLE], percentiles)
  relative_position = jax.jit(layers.relative_position, static_argnums=2)
  got = np.asarray(relative_position(np.where(HOLE, 1e-3, depth).astype(np.float32), ~HOLE, percentiles))
  expected = (1 / depth - far) / (near - far)
  np.testing.assert_allclose(got[~HOLE], expected[~HOLE], rtol=5e-3, atol=5e-3)


def test_filling():
  """Known values stay; a constant fills with itself; a ramp nearly with itself; without anything known it is 0."""
  rng = np.random.default_rng(4)
  known = np.stack([rng.random((HEIGHT, WIDTH)) < 0.05, ~HOLE, rng.random((HEIGHT, WIDTH)) < 0.3, HOLE & False])
  values = np.stack([np.full(X.shape, 3.0), 0.02 * X - 0.01 * Y, rng.normal(size=X.shape), X])
  filled = np.asarray(jax.jit(layers.fill_holes)(jnp.asarray(values, jnp.float32)[:, None], jnp.asarray(known)))[:, 0]
  np.testing.assert_array_equal(filled[known], values[known].astype(np.float32))
  np.testing.assert_allclose(filled[0], 3, rtol=1e-5)
  np.testing.assert_allclose(filled[1], values[1], atol=0.02)
  assert filled[2].min() >= values[2][known[2]].min() - 1e-5
  assert filled[2].max() <= values[2][known[2]].max() + 1e-5
  np.testing.assert_array_equal(filled[3], 0)


@pytest.mark.parametrize('reach', [1, 2, 5, 16])
def test_dilation(reach):
  mask = np.random.default_rng(5).random((2, HEIGHT, WIDTH)) < 3e-3
  expected = [ndimage.binary_dilation(m, np.ones((2 * reach + 1,) * 2)) for m in mask]
  np.testing.assert_array_equal(jax.jit(layers._dilate, static_argnums=1)(mask, reach), expected)


def test_a_real_photograph(shared):
  """A kitchen with holes in its depth, one pixel in ten; as the synthetic ones."""
  folder = shared / 'data' / 'rgbd' / '7scenes'
  if not folder.is_dir():
    pytest.skip(f'{folder.name}/ with photographs and depth is not there')
  rgb, depth = (np.asarray(Image.open(folder / f'frame-000000.{name}')) for name in ('color.jpg', 'depth.png'))
  rgb, depth = rgb[::10, ::9][:, :WIDTH] / 255, depth[::10, ::9][:, :WIDTH] / 1000
  # As many copies as the compiled batch size.
  batch = [np.broadcast_to(part, (len(NAMES), *part.shape)) for part in (rgb, depth, depth > 0)]
  scene, top, picture = jax.tree.map(lambda x: np.asarray(x[0]), cut_each(*arrays(*batch)))
  np.testing.assert_array_equal(scene.known, depth > 0)
  assert 0.5 < scene.known.mean() < 1
  np.testing.assert_allclose(picture, np.moveaxis(rgb, -1, 0) ** 2.2, atol=1e-5)
  inverse = 1 / depth[depth > 0]
  np.testing.assert_allclose(top[depth > 0], (inverse - inverse.min()) / np.ptp(inverse), atol=1e-5)


def test_a_scene_without_layers_is_refused():
  blank = jnp.ones((4, 4))
  with pytest.raises(InputError, match='num_layers is 0, expected at least 1'):
    layers.scene_from_rgbd(jnp.ones((4, 4, 3)), blank, blank, 0)
