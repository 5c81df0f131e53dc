"""Procedural scenes: guarantees for every scene, and the variety of many, against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import ndimage, stats

from focal_jax.errors import InputError
from focal_jax.simulate import defocus, scenes
from focal_jax.simulate.scenes import Scene, SceneSettings

HEIGHT, WIDTH, SURFACES, COUNT = 64, 96, 6, 48
SHAPE_PX = (4.0, 32.0)
WHITE = 1.7  # a white surface in the brightest light


def all_in_focus(scene):
  """What a stack hands out as sharp everywhere, in linear light: [3, H, W]."""
  return defocus.compose(defocus.premultiply(scene.colour, scene.alpha, jnp.zeros(()))).swapaxes(0, 1)


@functools.cache
def draw(**settings):
  """COUNT scenes [COUNT, K, ...] with what they show; what is drawn depends on the settings alone."""

  def one(key):
    scene = scenes.draw_scene(key, SURFACES, HEIGHT, WIDTH, SceneSettings(shape_px=SHAPE_PX, **settings))
    return scene, scenes.top_position(scene), all_in_focus(scene)

  keys = random.split(random.key(0), COUNT).at[1].set(random.split(random.key(0), COUNT)[0])  # the first one twice
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def drawn():
  return draw()


def solid():
  """Only planes of solid outline, textured and without highlights."""
  return draw(thin=0.0, curved=0.0, plain=0.0, highlights=0.0)


def thin():
  """Only thin things without texture, all with highlights, all facing the camera."""
  return draw(thin=1.0, plain=1.0, highlights=1.0, relief=0.0, background_relief=0.0)


def test_every_scene_is_as_documented():
  scene, top, picture = drawn()
  assert scene.colour.shape == (COUNT, SURFACES, 3, HEIGHT, WIDTH)
  assert scene.alpha.shape == scene.position.shape == (COUNT, SURFACES, HEIGHT, WIDTH)
  assert top.shape == scene.known.shape == (COUNT, HEIGHT, WIDTH)
  assert picture.shape == (COUNT, 3, HEIGHT, WIDTH)
  for values in (*jax.tree.leaves(scene), top, picture):
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
  assert scene.colour.min() >= 0
  assert scene.alpha.min() >= 0
  assert scene.alpha.max() <= 1
  np.testing.assert_array_equal(scene.alpha[:, 0], 1)
  np.testing.assert_array_equal(scene.known, 1)
  low, high = scenes.POSITION_LIMITS
  assert low <= scene.position.min() < 0.05
  assert 0.95 < scene.position.max() <= high


def test_the_key_decides():
  for values in (*jax.tree.leaves(drawn()[0]), *drawn()[1:]):
    np.testing.assert_array_equal(values[0], values[1])
  colour = drawn()[0].colour
  for i in range(2, COUNT):
    assert not np.array_equal(colour[i], colour[0])
  assert not np.array_equal(colour[0, 0], colour[0, 1])  # and surfaces differ


@pytest.mark.slow
def test_surfaces_lie_far_to_near_within_the_range():
  """All facing the camera, each has one position."""
  position = thin()[0].position
  np.testing.assert_array_equal(position, position[..., :1, :1] * np.ones((HEIGHT, WIDTH)))
  position = position[..., 0, 0]
  assert np.all(np.diff(position) >= 0)
  assert position.min() >= -0.05
  assert position.max() <= 1.05
  extent = position[:, -1] - position[:, 0]
  assert 0.1 < extent.min() < 0.4
  assert extent.max() > 0.75


def test_backgrounds_beyond_the_sweep():
  """Of the share of scenes asked for, evenly spread; all else stays where it is."""

  @functools.partial(jax.jit, static_argnums=0)
  def places(beyond):
    settings = SceneSettings(relief=0.0, background_relief=0.0, beyond=beyond)
    one = functools.partial(scenes.draw_scene, num_surfaces=3, height=8, width=8, settings=settings)
    return jax.vmap(one)(random.split(random.key(3), 400)).position[..., 0, 0]

  within, some, every = (np.asarray(places(share)) for share in (0.0, 0.3, 1.0))
  np.testing.assert_allclose(some[:, 1:], within[:, 1:], atol=1e-6)
  assert within[:, 0].min() >= -0.05
  chosen = np.abs(some[:, 0] - within[:, 0]) > 1e-5
  assert chosen.mean() == pytest.approx(0.3, abs=0.07)
  np.testing.assert_allclose(some[chosen, 0], every[chosen, 0], atol=1e-6)
  assert scenes.FARTHEST_BACKGROUND <= every[:, 0].min() < 0.98 * scenes.FARTHEST_BACKGROUND
  assert every[:, 0].max() <= 0
  assert every[:, 0].mean() == pytest.approx(scenes.FARTHEST_BACKGROUND / 2, abs=0.025)


def test_scenes_anywhere_about_the_sweep():
  """Of the share asked for: of any extent from shallow to more than the sweep, evenly on a logarithmic scale."""

  @functools.partial(jax.jit, static_argnums=0)
  def places(anywhere):
    settings = SceneSettings(relief=0.0, background_relief=0.0, anywhere=anywhere)
    one = functools.partial(scenes.draw_scene, num_surfaces=40, height=2, width=2, settings=settings)
    return jax.vmap(one)(random.split(random.key(3), 300)).position[..., 0, 0]

  usual, some, every = (np.asarray(places(share)) for share in (0.0, 0.3, 1.0))
  chosen = np.any(np.abs(some - usual) > 1e-5, axis=1)
  assert chosen.mean() == pytest.approx(0.3, abs=0.08)
  np.testing.assert_allclose(some[chosen], every[chosen], atol=1e-6)
  low, high = scenes.ANYWHERE_LIMITS
  assert low <= every.min() < low + 0.05
  assert high - 0.05 < every.max() <= high
  extent = np.ptp(every, axis=1) * 41 / 39  # the mean of the range of 40 numbers is 39 / 41 of where they may lie
  share = np.log(extent / scenes.SHALLOWEST) / np.log((high - low) / scenes.SHALLOWEST)
  assert stats.kstest(share, 'uniform').pvalue > 0.01
  beyond = (every.max(1) < 0) | (every.min(1) > 1)
  assert beyond.mean() > 0.05  # wholly outside


def test_the_nearest_surface_is_on_top():
  """Also where slanted and curved surfaces cross, up to what is antialiased there."""
  scene, top, _ = drawn()
  covered = np.where(scene.alpha > 0.5, scene.position, -np.inf)
  np.testing.assert_array_equal(top, covered.max(1))
  last = SURFACES - 1 - np.argmax(scene.alpha[:, ::-1] > 0.5, axis=1)
  np.testing.assert_array_equal(top, np.take_along_axis(scene.position, last[:, None], 1)[:, 0])
  crossing = scene.position[:, 1:] < np.maximum.accumulate(covered, 1)[:, :-1] - scenes.CROSSING
  assert crossing.mean() > 0.05
  assert scene.alpha[:, 1:][crossing].max() == 0
  assert 0.1 < np.mean(last > 0) < 0.9


def test_all_in_focus_is_painted_far_to_near():
  scene, _, picture = drawn()
  expected = np.zeros_like(picture, np.float64)
  for k in range(SURFACES):
    alpha = scene.alpha[:, k, None].astype(np.float64)
    expected = alpha * scene.colour[:, k] + (1 - alpha) * expected
  np.testing.assert_allclose(picture, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_planes_are_linear_in_dioptres():
  position = solid()[0].position.astype(np.float64)
  low, high = scenes.POSITION_LIMITS
  inside = np.all((position > low) & (position < high), axis=(2, 3))
  assert inside.mean() > 0.3
  for axis in (2, 3):
    assert np.abs(np.diff(position, 2, axis)[inside]).max() < 2e-6
  slope = np.abs(np.diff(position, axis=3)[inside]).max((1, 2))
  assert np.mean(slope < 1e-6) > 0.05  # some face the camera
  assert np.mean(slope > 1e-3) > 0.5
  # Others are curved.
  position = drawn()[0].position
  assert np.mean(np.abs(np.diff(position, 2, 3)).max((2, 3)) > 1e-3) > 0.2


def test_relief_by_hand():
  """A ball is the upper half of a sphere, a cylinder one of a circle; a paraboloid goes on beyond the edge."""
  x, y = np.meshgrid(np.linspace(-1.5, 1.5, 31), np.linspace(-1.5, 1.5, 31))
  across, down = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
  ball = np.asarray(scenes.relief(across, down, jnp.float32(0.5)))
  within = np.hypot(x, y) < 1
  np.testing.assert_allclose((x**2 + y**2 + ball**2)[within], 1, atol=1e-5)
  np.testing.assert_array_equal(ball[np.hypot(x, y) > 1.001], 0)
  cylinder = np.asarray(scenes.relief(across, 0 * down, jnp.float32(0.5)))
  np.testing.assert_allclose(cylinder, np.sqrt(np.maximum(1 - x**2, 0)), atol=1e-3)
  np.testing.assert_allclose(scenes.relief(across, down, jnp.float32(1.5)), 1 - x**2 - y**2, atol=1e-5)
  np.testing.assert_allclose(scenes.relief(across, down, jnp.float32(2.5)), np.cos(4 * np.pi * x), atol=1.2e-3)


@pytest.mark.slow
def test_steep_surfaces_reach_through_the_sweep():
  """The same surfaces with up to the whole range between centre and edge: slopes grow by up to 1 / relief."""
  usual, steep = (draw(thin=0.0, curved=0.0, steep=share)[0].position for share in (0.0, 1.0))

  def slope(position):
    return np.median(np.abs(np.diff(position, axis=3)), (2, 3))[:, 1:]  # without the background, which is steeper

  before, after = slope(usual), slope(steep)
  slanted = before > 1e-5
  ratio = after[slanted] / before[slanted]
  # log-uniform between 1 and 1 / 0.15, less where the range is left and cut off
  assert 1 / 0.15 * 0.8 < np.quantile(ratio, 0.99) < 1 / 0.15 * 1.001
  assert 1.4 < np.median(ratio) < 2.6
  assert np.mean(after[~slanted] < 1e-5) > 0.95


@pytest.mark.slow
def test_rough_surfaces_have_bumps_of_the_sizes_asked_for():
  smooth, rough = (draw(thin=0.0, relief=0.0, background_relief=0.0, rough=share)[0].position for share in (0.0, 1.0))
  assert np.ptp(smooth, (2, 3)).max() == 0
  spread = rough.std((2, 3))
  low, high = scenes.BUMPS
  assert low * 0.9 < spread.min()
  assert spread.max() < high * 1.001
  np.testing.assert_allclose(np.median(spread), np.sqrt(low * high), rtol=0.4)


def roughness(scene: Scene) -> np.ndarray:
  """Of each surface [COUNT, K]: the median of the second difference, over its mean brightness."""
  green = scene.colour[:, :, 1]
  return np.median(np.abs(np.diff(green, 2, 3)), (2, 3)) / green.mean((2, 3))


def test_textures_spread_from_none_to_strong():
  plain, textured, mixed = (roughness(scene) for scene in (thin()[0], solid()[0], drawn()[0]))
  assert np.median(plain) < 0.02
  assert np.median(textured) > 3 * np.median(plain)
  low, high = np.quantile(mixed, (0.1, 0.9))
  assert high > 30 * low
  # A fifth is plain; beyond that, some patterns are so wide and faint that they count as well.
  limit = np.quantile(plain, 0.9)
  assert 0.15 < np.mean(mixed < limit) < 0.6
  assert np.mean(mixed < limit) > np.mean(textured < limit) + 0.05


@pytest.mark.slow
def test_patchy_surfaces_keep_their_texture_in_places():
  """Outlines and depth are those without patches; what is plain is a colour of its own, and the rest is as strong."""
  whole, patchy = (draw(plain=0.0, thin=0.0, contrast=(1.0, 1.0), highlights=0.0, patchy=p) for p in (0.0, 1.0))
  np.testing.assert_array_equal(whole[0].alpha, patchy[0].alpha)
  np.testing.assert_array_equal(whole[1], patchy[1])

  def slope(scene):
    return np.abs(np.diff(scene.colour[:, 0].mean(1), axis=-1))

  before, after = slope(whole[0]), slope(patchy[0])
  strong = before > np.median(before)
  gone = np.mean((after < 0.1 * before) & strong) / np.mean(strong)
  kept = np.mean((after > 0.9 * before) & strong) / np.mean(strong)
  assert 0.3 < gone < 0.8
  assert 0.1 < kept < 0.6


def test_contrast_of_textures():
  """The same scenes with a twentieth of the contrast: from pixel to pixel, what is left is grain and shading."""

  def differences(contrast):
    settings = SceneSettings(plain=0.0, highlights=0.0, contrast=(contrast, contrast))
    keys = random.split(random.key(4), 24)
    colour = jax.vmap(lambda key: scenes.draw_scene(key, 2, 32, 32, settings).colour)(keys)
    return jnp.abs(jnp.diff(colour)).mean((-2, -1))

  strong, faint = (np.asarray(jax.jit(functools.partial(differences, contrast))()) for contrast in (1.0, 0.05))
  assert np.median(faint / strong) < 0.5


def test_highlights_are_small_bright_and_not_everywhere():
  without, some, all_of_them = (scene.colour.max((2, 3, 4)) for scene in (solid()[0], drawn()[0], thin()[0]))
  assert without.max() <= WHITE
  assert 0.05 < np.mean(some > WHITE) < 0.25
  assert np.mean(all_of_them > WHITE) > 0.45
  assert 10 < all_of_them.max() <= WHITE + SceneSettings().highlight_level[1]
  bright = thin()[0].colour.max(2) > WHITE
  assert 0 < bright.mean() < 0.05
  assert np.mean(drawn()[2].max((1, 2, 3)) > WHITE) > 0.2  # and are seen


def test_thin_structures():
  """Of thin things, few hold a square of 9 px; of solid outlines of this size, most do."""

  def share_of_thin(scene):
    alpha = scene.alpha[:, 1:]
    seen = alpha.max((2, 3)) > 0.9
    holds = np.array([[ndimage.binary_erosion(a > 0.5, np.ones((9, 9))).any() for a in s] for s in alpha])
    return np.mean(~holds[seen])

  only, none, some = (share_of_thin(scene) for scene in (thin()[0], solid()[0], drawn()[0]))
  assert only > 0.75
  assert none < 0.5
  assert none < some < only


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    ('shape_px', (0.0, 4.0), 'two numbers above 0'),
    ('thin_px', (6.0, 0.8), 'two numbers above 0, the lower one first'),
    ('highlight_level', (1.0, float('inf')), 'two numbers'),
    ('thin', 1.5, 'a number from 0 to 1'),
    ('plain', -0.1, 'a number from 0 to 1'),
    ('patchy', 1.1, 'a number from 0 to 1'),
    ('steep', -0.1, 'a number from 0 to 1'),
    ('relief', float('nan'), 'a number from 0 to 1'),
  ],
)
def test_bad_settings_name_the_field(field, value, expected):
  with pytest.raises(InputError, match=rf'simulator\.scene\.{field} is .*, expected {expected}'):
    SceneSettings(**{field: value})
