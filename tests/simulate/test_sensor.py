"""The sensor against its noise model, NumPy's and SciPy's arithmetic, and Pillow's JPEG."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from PIL import Image
from scipy import fft, stats

from focal_jax.errors import InputError
from focal_jax.simulate import sensor
from focal_jax.simulate.sensor import SensorSettings

CLEAN = SensorSettings(shot_noise=(0.0, 0.0), read_noise=(0.0, 0.0), jpeg_quality=None)
QUALITIES = (20, 50, 75, 95, 100)
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def record(settings):
  return jit(functools.partial(sensor.record, settings=settings))


def unchanged(n):
  return jnp.ones(n), jnp.ones((n, 3))


# Noise.


@pytest.fixture(scope='module')
def numbers():
  """[256, 512, 3]"""
  return np.asarray(jit(sensor.nearly_normal, static_argnums=1)(random.key(0), (256, 512, 3)), np.float64)


def test_nearly_normal_moments(numbers):
  n = numbers.size
  np.testing.assert_allclose(numbers.mean(), 0, atol=4 / np.sqrt(n))
  np.testing.assert_allclose(numbers.var(), 1, atol=4 * np.sqrt(1.7 / n))
  np.testing.assert_allclose(stats.skew(numbers.ravel()), 0, atol=0.02)
  np.testing.assert_allclose(stats.kurtosis(numbers.ravel()), -1.2 / 4, atol=0.02)  # of four uniform numbers
  assert np.abs(numbers).max() < 3.5
  # The distribution function leaves the normal's by less than 0.01.
  assert stats.kstest(numbers.ravel(), 'norm').statistic < 0.01


def test_nearly_normal_numbers_do_not_depend_on_each_other(numbers):
  """Nor do squares: neighbours along each axis, and the colours that one word gives."""
  limit = 5 / np.sqrt(numbers.size / 3)
  for values in (numbers, numbers**2 - 1):
    for axis in (0, 1):
      a, b = np.delete(values, 0, axis), np.delete(values, -1, axis)
      assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit
    colours = np.corrcoef(values.reshape(-1, 3).T)
    np.testing.assert_allclose(colours, np.eye(3), atol=limit)


def test_noise_is_that_of_the_model():
  """Variance shot^2 light + read^2 at every level, mean as without."""
  levels = jnp.array([0.0, 0.01, 0.1, 0.5, 1.0, 1.5])
  light = jnp.broadcast_to(levels[:, None, None, None], (6, 128, 128, 3))
  for shot, read in ((0.03, 0.002), (0.0, 0.01), (0.05, 0.0)):
    noisy = jit(sensor.add_noise)(random.key(1), light, jnp.array(shot), jnp.array(read))
    error = np.asarray(noisy - light, np.float64)
    variance = shot**2 * np.asarray(levels) + read**2
    np.testing.assert_allclose(error.var((1, 2, 3)), variance, rtol=0.03, atol=2e-12)
    assert np.all(np.abs(error.mean((1, 2, 3))) < 4 * np.sqrt(variance / error[0].size) + 1e-7)


def test_amounts_are_drawn_for_each_stack():
  """On grey; the noise of display values is sd / (2.2 light^(1.2 / 2.2)), uniform in sd."""
  settings = SensorSettings(shot_noise=(0.0, 0.0), read_noise=(0.01, 0.05), jpeg_quality=None)
  grey = jnp.full((1, 32, 32, 3), 0.4)
  stacks = jit(jax.vmap(lambda key: sensor.record(key, grey, *unchanged(1), settings)))(random.split(random.key(2), 64))
  amounts = np.asarray(stacks).std((1, 2, 3, 4)) * 2.2 * 0.4 ** (1.2 / 2.2)
  assert 0.009 < amounts.min() < 0.015
  assert 0.045 < amounts.max() < 0.055
  np.testing.assert_allclose(amounts.mean(), 0.03, atol=0.005)


# Gains, white, gamma, eight bits.


def test_gains_white_and_gamma():
  light = np.random.default_rng(0).random((3, 8, 11, 3)).astype(np.float32) ** 2 * 1.5
  light[0, 0] = np.linspace(-0.1, 0, 11)[:, None]  # resampled light may ring below 0
  exposure = np.array([0.5, 2.0, 1.0], np.float32)
  balance = np.array([[1.2, 1.0, 0.7], [0.9, 1.0, 1.1], [1.0, 1.0, 1.0]], np.float32)
  images = record(CLEAN)(random.key(0), *map(jnp.asarray, (light, exposure, balance)))
  linear = np.clip(light * exposure[:, None, None, None] * balance[:, None, None], 0.0, 1.0)
  steps = np.asarray(images, np.float64) * 255
  np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
  expected = linear ** (1 / 2.2) * 255
  np.testing.assert_allclose(steps, expected, atol=0.501)
  np.testing.assert_array_equal(images[0, 0], 0)
  assert images.max() == 1


def test_gradient_in_the_light():
  """That of gain and gamma, straight through the rounding; nothing where it is white; finite where it is black."""
  light = jnp.array([0.0, 0.05, 0.4, 0.9, 3.0])[:, None, None, None] * jnp.ones((5, 1, 1, 3))
  gain = jnp.full(5, 0.8)
  slope = jit(jax.grad(lambda x: sensor.record(random.key(0), x, gain, jnp.ones((5, 3)), CLEAN).sum()))(light)
  x = np.array([0.05, 0.4, 0.9]) * 0.8
  np.testing.assert_allclose(slope[1:4, 0, 0, 0], 0.8 / 2.2 * x ** (1 / 2.2 - 1), rtol=1e-3)
  np.testing.assert_array_equal(slope[4], 0)
  noisy = SensorSettings(jpeg_quality=(80.0, 80.0), without_jpeg=0.0)
  light = np.random.default_rng(0).random((2, 9, 12, 3)).astype(np.float32)
  light[0, :4] = 0
  slope = jit(jax.grad(lambda x: (sensor.record(random.key(0), x, *unchanged(2), noisy) ** 2).sum()))(jnp.array(light))
  assert np.isfinite(slope).all()
  assert np.mean(np.asarray(slope) != 0) > 0.7


# JPEG.


@pytest.fixture(scope='module')
def photograph():
  """[2, 45, 70, 3] in 8 bits: smooth shades, an edge, some grain; neither side a multiple of 8."""
  rng = np.random.default_rng(3)
  y, x = np.mgrid[:45, :70]
  waves = np.stack([np.sin(x / a + y / b) for a, b in ((5, 9), (-7, 4), (12, 6))], axis=-1)
  image = 0.5 + 0.25 * waves + 0.03 * rng.standard_normal((2, 45, 70, 3))
  image[:, 20:, 30:] = 0.9 - 0.6 * image[:, 20:, 30:]
  return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope='module')
def compressed(photograph):
  """{quality: [2, H, W, 3] in steps of 1}"""
  display = jnp.asarray(photograph, jnp.float32) / 255
  images = jit(jax.vmap(lambda quality: sensor.jpeg(display, quality)))(jnp.array(QUALITIES, jnp.float32))
  return dict(zip(QUALITIES, np.round(np.asarray(images, np.float64) * 255), strict=True))


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((np.float64(a) - np.float64(b)) ** 2))


def by_pillow(image, quality):
  with io.BytesIO() as file:
    Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=0)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize('quality', QUALITIES)
def test_jpeg_is_pillows(photograph, compressed, quality):
  """The same loss, and much nearer to Pillow's result than either is to the original."""
  for image, ours in zip(photograph, compressed[quality], strict=True):
    pillows = by_pillow(image, quality)
    assert abs(psnr(ours, image) - psnr(pillows, image)) < (0.2 if quality < 100 else 1)
    assert psnr(ours, pillows) > psnr(pillows, image) + (3 if quality < 95 else 0)


def test_jpeg_loses_more_at_lower_quality(photograph, compressed):
  loss = [psnr(compressed[q], photograph) for q in QUALITIES]
  assert np.all(np.diff(loss) > 1)
  assert loss[-1] > 45


def test_quantisation_is_libjpegs():
  for quality in (1, 20, 49, 50, 75, 100):
    with io.BytesIO() as file:
      Image.new('RGB', (8, 8)).save(file, 'JPEG', quality=quality)
      tables = Image.open(file).quantization
    ours = np.asarray(sensor.quantisation(jnp.array(quality, jnp.float32)))
    np.testing.assert_array_equal(ours[0].ravel(), tables[0])
    np.testing.assert_array_equal(ours[1].ravel(), tables[1])
    np.testing.assert_array_equal(ours[2], ours[1])


def test_cosine_matrix():
  np.testing.assert_allclose(sensor.cosine_matrix(), fft.dct(np.eye(8), axis=0, norm='ortho'), atol=1e-12)


def test_share_without_jpeg():
  settings = SensorSettings(shot_noise=(0.0, 0.0), read_noise=(0.0, 0.0), jpeg_quality=(10.0, 20.0), without_jpeg=0.3)
  light = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 3)), jnp.float32)
  simulate = jit(lambda keys: jax.lax.map(lambda key: sensor.record(key, light, *unchanged(1), settings), keys))
  images = np.asarray(simulate(random.split(random.key(5), 128)))
  clean = np.asarray(light) ** (1 / 2.2)
  error = np.abs(images - clean).mean((1, 2, 3, 4))
  intact = error < 1 / 255
  np.testing.assert_allclose(intact.mean(), 0.3, atol=0.12)
  assert error[~intact].min() > 0.03
  assert np.unique(error[~intact].round(6)).size > 10  # qualities differ
  np.testing.assert_array_equal(images, simulate(random.split(random.key(5), 128)))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('shot_noise', (0.02, 0.01)),
    ('shot_noise', (-0.1, 0.1)),
    ('read_noise', (0.1, 0.0)),
    ('jpeg_quality', (0.0, 90.0)),
    ('jpeg_quality', (50.0, 101.0)),
    ('without_jpeg', 1.5),
  ],
)
def test_bad_settings_name_the_field(field, value):
  with pytest.raises(InputError, match=f'^simulator.sensor.{field} is '):
    SensorSettings(**{field: value})
