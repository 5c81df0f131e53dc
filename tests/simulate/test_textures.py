"""Photographs as textures, against crops by NumPy and Pillow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from focal_jax.simulate import textures as textures_module
from focal_jax.simulate.scenes import SceneSettings, draw_scene
from focal_jax.simulate.stacks import SimulatorSettings, simulate
from focal_jax.simulate.textures import Textures, draw_texture

SIDE = 40


@pytest.fixture(scope='module')
def textures():
  tiles = np.random.default_rng(0).integers(0, 256, (3, 3, SIDE, SIDE), np.uint8)
  return Textures(tiles=tiles, share=np.array(0.5, np.float32))


class MiddlingDraws:
  """Every number is drawn at the same fraction of its range."""

  place = 0.3

  def __init__(self, *_):
    pass

  def uniform(self, low=0.0, high=1.0):
    return low + (high - low) * jnp.float32(self.place)

  def log_uniform(self, low, high):
    return jnp.exp(self.uniform(np.log(low), np.log(high)))


def test_a_crop_at_its_own_scale_is_the_tiles(textures, monkeypatch):
  for name in ('SCALE', 'GAIN', 'TINT'):
    monkeypatch.setattr(textures_module, name, (1.0, 1.0))
  light = ((np.arange(256) / 255) ** 2).astype(np.float32)[textures.tiles]
  seen, turns, carried, draw = set(), set(), 0, jax.jit(draw_texture, static_argnums=(2, 3))
  for seed in range(60):
    is_carried, crop = draw(jax.random.key(seed), textures, 12, 12)
    carried += bool(is_carried)
    found = [
      (tile, turn, mirrored)
      for tile in range(3)
      for turn in range(4)
      for mirrored in (False, True)
      for view in [np.rot90(light[tile], turn, (1, 2))]
      for view in [view[:, :, ::-1] if mirrored else view]
      if np.isclose(np.lib.stride_tricks.sliding_window_view(view, (3, 12, 12))[0], crop, atol=1e-4)
      .all((2, 3, 4))
      .any()
    ]
    assert len(found) == 1
    seen.add(found[0][0])
    turns.add(found[0][1:])
  assert (len(seen), len(turns)) == (3, 8)
  assert 15 < carried < 45


@pytest.mark.parametrize(('height', 'width', 'place'), [(12, 16, 0.7), (16, 12, 0.51), (30, 30, 0.9), (50, 60, 0.6)])
def test_scaled_crops_are_pillows(textures, height, width, place, monkeypatch):
  """The last one is larger than its tile."""
  monkeypatch.setattr(textures_module, 'Draws', MiddlingDraws)
  monkeypatch.setattr(MiddlingDraws, 'place', place)
  _, crop = jax.jit(lambda key: draw_texture(key, textures, height, width))(jax.random.key(0))

  low = max(0.7, width / SIDE, height / SIDE)
  scale = low * (max(1.4, low) / low) ** place
  window = min(SIDE, int(np.ceil(max(height, width) / low)))
  corner = int(place * (SIDE - window + 1))
  left, top = (place * (window - length / scale) for length in (width, height))
  box = (left, top, min(left + width / scale, window), min(top + height / scale, window))
  gain = (0.4 * 3**place) * (0.8 * (1.25 / 0.8) ** place)
  for channel, found in zip(textures.tiles[int(3 * place)], crop, strict=True):
    light = (channel[corner : corner + window, corner : corner + window].astype(np.float32) / 255) ** 2
    expected = Image.fromarray(light).resize((width, height), Image.Resampling.BICUBIC, box)
    # Pillow's filter ends at the box.
    inner = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(found[inner], gain * np.maximum(expected, 0)[inner], atol=2e-3)


def test_nothing_but_the_colours_of_surfaces_depends_on_textures(textures):
  drawn = jax.jit(draw_scene, static_argnums=(1, 2, 3, 4))

  def draw(share):
    given = None if share is None else textures.replace(share=np.array(share, np.float32))
    return drawn(jax.random.key(4), 12, 24, 32, SceneSettings(), given)

  without, none, some, every = (draw(share) for share in (None, 0.0, 0.5, 1.0))
  # The same formulas may round differently when compiled with others.
  np.testing.assert_allclose(without.colour, none.colour, atol=1e-4)
  for scene in (none, some, every):
    for name in ('alpha', 'position', 'known'):
      np.testing.assert_allclose(getattr(scene, name), getattr(without, name), atol=1e-5)
  same = np.array([np.array_equal(a, b) for a, b in zip(some.colour, none.colour, strict=True)])
  assert 2 <= same.sum() <= 10
  np.testing.assert_array_equal(some.colour[~same], every.colour[~same])


def test_light_and_shadow_fall_on_photographs(textures):
  """A surface with a plain tile shows its light alone, equal in all channels except for their gain."""
  even = Textures(tiles=np.full_like(textures.tiles, 200), share=np.array(1.0, np.float32))
  drawn = jax.jit(draw_scene, static_argnums=(1, 2, 3, 4))
  scene = drawn(jax.random.key(0), 6, 32, 32, SceneSettings(highlights=0.0), even)
  red, green, blue = np.moveaxis(np.asarray(scene.colour), 1, 0)
  for other in (green, blue):
    ratio = other / red
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-3)
  assert np.ptp(red, axis=(1, 2)).min() > 0.01


@pytest.mark.slow
def test_a_stacks_truth_is_that_of_its_procedural_one(textures):
  settings = SimulatorSettings(num_frames=3, height_px=16, width_px=16, margin_px=4, num_surfaces=3)
  settings = dataclasses.replace(settings, scene=SceneSettings(highlights=0.0))
  given = textures.replace(share=np.array(1.0, np.float32))
  drawn = jax.jit(simulate, static_argnums=1)
  plain, textured = drawn(jax.random.key(1), settings), drawn(jax.random.key(1), settings, given)
  for name in ('focus', 'fov', 'target', 'valid', 'motion'):
    np.testing.assert_allclose(getattr(plain, name), getattr(textured, name), rtol=1e-5, atol=1e-6)
  assert np.abs(plain.all_in_focus - textured.all_in_focus).mean() > 0.02
  assert np.isfinite(textured.images).all()
