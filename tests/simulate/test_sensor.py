"""The sensor against its noise model, NumPy's and SciPy's arithmetic, and Pillow's JPEG."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from PIL import Image
from scipy import fft, ndimage, stats

from focal_jax.errors import InputError
from focal_jax.simulate import jpeg, sensor
from focal_jax.simulate import noise as noise_model
from focal_jax.simulate.sensor import IDEAL, SensorSettings

QUALITIES = (20, 50, 75, 95, 100)
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def record(settings):
  return jit(functools.partial(sensor.record, settings=settings))


def unchanged(n):
  return jnp.ones(n), jnp.ones((n, 3))


@pytest.fixture(scope='module')
def photograph():
  """[2, 45, 70, 3] in 8 bits: smooth shades, an edge, some grain; neither side a multiple of 8."""
  rng = np.random.default_rng(3)
  y, x = np.mgrid[:45, :70]
  waves = np.stack([np.sin(x / a + y / b) for a, b in ((5, 9), (-7, 4), (12, 6))], axis=-1)
  image = 0.5 + 0.25 * waves + 0.03 * rng.standard_normal((2, 45, 70, 3))
  image[:, 20:, 30:] = 0.9 - 0.6 * image[:, 20:, 30:]
  return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


# Noise.


@pytest.fixture(scope='module')
def numbers():
  """[256, 512, 3]"""
  return np.asarray(jit(noise_model.approximate_normal, static_argnums=1)(random.key(0), (256, 512, 3)), np.float64)


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
    noisy = jit(noise_model.add_noise)(random.key(1), light, jnp.array(shot), jnp.array(read))
    error = np.asarray(noisy - light, np.float64)
    variance = shot**2 * np.asarray(levels) + read**2
    np.testing.assert_allclose(error.var((1, 2, 3)), variance, rtol=0.03, atol=2e-12)
    assert np.all(np.abs(error.mean((1, 2, 3))) < 4 * np.sqrt(variance / error[0].size) + 1e-7)


def record_many(settings, light, count):
  """[count, N, H, W, 3]: stacks of the same light from as many keys."""
  unit = unchanged(len(light))
  simulate = jit(lambda keys: jax.lax.map(lambda key: sensor.record(key, light, *unit, settings), keys))
  return np.asarray(simulate(random.split(random.key(2), count)), np.float64)


def test_amounts_of_noise_are_log_uniform():
  """Drawn for each stack, of grey; measured in linear light. A share has none at all."""
  settings = dataclasses.replace(IDEAL, read_noise=(0.005, 0.1), noiseless=0.2)
  stacks = record_many(settings, jnp.full((1, 32, 32, 3), 0.4), 400)
  amounts = (stacks**2.2).std((1, 2, 3, 4))
  np.testing.assert_allclose(np.mean(amounts == 0), 0.2, atol=0.06)
  places = np.log(amounts[amounts > 0] / 0.005) / np.log(0.1 / 0.005)
  assert stats.kstest(places, 'uniform').pvalue > 0.01
  assert stats.kstest(amounts[amounts > 0] / 0.1, 'uniform').pvalue < 1e-9


def test_correlated_noise_is_filtered_white_noise(numbers):
  """Against SciPy's filter; each colour's variance stays 1, and neighbours correlate as exp(-d^2 / 4 sigma^2)."""
  white = numbers[None]
  noise = jit(noise_model.correlate_noise)(jnp.asarray(white, jnp.float32), jnp.array(0.8), jnp.array(1.6))
  noise = np.asarray(noise, np.float64)
  expected = np.zeros_like(white)
  grey = white.mean(-1, keepdims=True)
  for part, sigma, radius in ((grey, 0.8, 4), (white - grey, 1.6, 7)):
    weights = ndimage.gaussian_filter1d(np.eye(2 * radius + 1)[radius], sigma, radius=radius, mode='constant')
    filtered = ndimage.gaussian_filter(part, (0, sigma, sigma, 0), radius=(0, radius, radius, 0), mode='wrap')
    expected += filtered / (weights @ weights)
  np.testing.assert_allclose(noise, expected, atol=1e-4)
  np.testing.assert_allclose(noise.std((0, 1, 2)), 1, atol=0.02)
  grey = noise.mean(-1)
  np.testing.assert_allclose(grey.var(), 1 / 3, rtol=0.05)
  for part, sigma in ((grey, 0.8), (noise[..., 0] - grey, 1.6)):
    for distance in (1, 2, 3):
      neighbours = np.mean(part * np.roll(part, distance, 2)) / part.var()
      np.testing.assert_allclose(neighbours, np.exp(-(distance**2) / (4 * sigma**2)), atol=0.03)


def test_share_of_correlated_noise():
  """The others' is white; the amount is the drawn one for all."""
  settings = dataclasses.replace(IDEAL, read_noise=(0.03, 0.03), correlated=0.4)
  noise = record_many(settings, jnp.full((1, 48, 48, 3), 0.4), 200)[:, 0] ** 2.2 - 0.4
  np.testing.assert_allclose(noise.std((1, 2, 3)), 0.03, rtol=0.1)
  neighbours = np.mean(noise[:, :, 1:] * noise[:, :, :-1], (1, 2, 3)) / 0.03**2
  np.testing.assert_allclose(np.mean(neighbours > 0.1), 0.4, atol=0.1)  # even the narrowest has chroma blotches


# Gains, white, gamma, eight bits.


def test_gains_white_and_gamma():
  light = np.random.default_rng(0).random((3, 8, 11, 3)).astype(np.float32) ** 2 * 1.5
  light[0, 0] = np.linspace(-0.1, 0, 11)[:, None]  # resampled light may ring below 0
  exposure = np.array([0.5, 2.0, 1.0], np.float32)
  balance = np.array([[1.2, 1.0, 0.7], [0.9, 1.0, 1.1], [1.0, 1.0, 1.0]], np.float32)
  images = record(IDEAL)(random.key(0), *map(jnp.asarray, (light, exposure, balance)))
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
  slope = jit(jax.grad(lambda x: sensor.record(random.key(0), x, gain, jnp.ones((5, 3)), IDEAL).sum()))(light)
  x = np.array([0.05, 0.4, 0.9]) * 0.8
  np.testing.assert_allclose(slope[1:4, 0, 0, 0], 0.8 / 2.2 * x ** (1 / 2.2 - 1), rtol=1e-3)
  np.testing.assert_array_equal(slope[4], 0)
  everything = SensorSettings(
    noiseless=0.0, correlated=1.0, denoised=1.0, sharpened=1.0, without_jpeg=0.0, chroma_subsampled=1.0
  )
  light = np.random.default_rng(0).random((2, 9, 12, 3)).astype(np.float32)
  light[0, :4] = 0
  slope = jit(jax.grad(lambda x: (sensor.record(random.key(0), x, *unchanged(2), everything) ** 2).sum()))(light)
  assert np.isfinite(slope).all()
  assert np.mean(np.asarray(slope) != 0) > 0.7


# Vignetting, exposure, tone and colour.


def test_falloff_is_the_fourth_power_of_a_cosine():
  """Of the angle at which light arrives; the angle at the corner is that of the darkening."""
  vignetting = jit(sensor.vignetting, static_argnums=(1, 2), static_argnames='field')
  share = np.asarray(vignetting(jnp.array(0.4), 31, 41))
  np.testing.assert_allclose(share[15, 20], 1, atol=1e-6)
  np.testing.assert_allclose([share[0, 0], share[0, -1], share[-1, 0], share[-1, -1]], 0.6, atol=1e-6)
  tangent = np.sqrt(0.6**-0.5 - 1) * np.hypot(*np.mgrid[-15:16, -20:21]) / np.hypot(15, 20)
  np.testing.assert_allclose(share, np.cos(np.arctan(tangent)) ** 4, rtol=1e-5)
  # The middle of a larger picture.
  whole = np.asarray(vignetting(jnp.array(0.4), 61, 81))
  np.testing.assert_allclose(vignetting(jnp.array(0.4), 31, 41, field=0.5), whole[15:-15, 20:-20], rtol=1e-5)


def test_darkening_is_drawn_from_0():
  settings = dataclasses.replace(IDEAL, vignetting=0.5)
  stacks = record_many(settings, jnp.full((2, 9, 9, 3), 0.5), 200) ** 2.2 / 0.5
  darkening = 1 - stacks[:, 0, 0, 0, 0]
  np.testing.assert_allclose(stacks[:, :, 4, 4], 1, atol=0.02)
  np.testing.assert_array_equal(stacks[:, 0], stacks[:, 1])
  assert stats.kstest(darkening / 0.5, 'uniform').pvalue > 0.01


def test_exposure_tone_and_saturation():
  """In NumPy, in this order, the exposure before what is more than white is cut off."""
  settings = dataclasses.replace(IDEAL, exposure_stops=(0.5, 0.5), contrast=(1.3, 1.3), saturation=(0.4, 0.4))
  light = np.random.default_rng(1).random((2, 8, 11, 3)).astype(np.float32)
  images = np.asarray(record(settings)(random.key(0), jnp.asarray(light), *unchanged(2)))
  x = np.clip(light * 2**0.5, 0, 1) ** (1 / 2.2)
  smooth_step = 3 * x**2 - 2 * x**3
  x = x + 0.3 / 0.5 * (smooth_step - x)
  grey = x @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(images, grey[..., None] + 0.4 * (x - grey[..., None]), atol=0.51 / 255)


def test_tone_rises_from_black_to_white():
  x = jnp.linspace(0, 1, 101)
  for steepness in (0.5, 0.8, 1.0, 1.5):
    curve = np.asarray(sensor.tone(x, jnp.array(steepness)))
    np.testing.assert_allclose(curve[[0, 50, 100]], [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose((curve[51] - curve[49]) / 0.02, steepness, atol=1e-3)
    assert np.all(np.diff(curve) > 0)


def test_stops_are_drawn_for_each_stack():
  settings = dataclasses.replace(IDEAL, exposure_stops=(-2.0, 1.0))
  stacks = record_many(settings, jnp.full((2, 8, 8, 3), 0.4), 200)
  assert np.all(np.ptp(stacks, (1, 2, 3, 4)) == 0)
  stops = np.log2(stacks[:, 0, 0, 0, 0] ** 2.2 / 0.4)
  assert stats.kstest((stops + 2) / 3, 'uniform').pvalue > 0.01


# Denoiser and sharpening.


def test_unsharp_mask_is_scipys(photograph):
  display = photograph / 255
  got = jit(sensor.unsharp_mask)(jnp.asarray(display, jnp.float32), jnp.array(0.9), jnp.array(1.4))
  grey = display @ [0.299, 0.587, 0.114]
  detail = grey - ndimage.gaussian_filter(grey, (0, 1.4, 1.4), radius=(0, 6, 6), mode='nearest')
  np.testing.assert_allclose(got, np.clip(display + 0.9 * detail[..., None], 0, 1), atol=1e-5)
  assert np.var(got) > np.var(display)


def test_denoiser_takes_faint_texture_and_leaves_edges(photograph):
  """Against SciPy; checks of less than the threshold are gone, an edge has lost no more than the threshold."""
  denoise, threshold = jit(sensor.denoise), 0.02
  display = photograph / 255
  got = denoise(jnp.asarray(display, jnp.float32), jnp.array(1.0), jnp.array(threshold))
  smooth = ndimage.gaussian_filter(display, (0, 1, 1, 0), radius=(0, 5, 5, 0), mode='nearest')
  detail = display - smooth
  expected = smooth + np.sign(detail) * np.maximum(np.abs(detail) - threshold, 0)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  y, x = np.mgrid[:45, :70]
  checks = 0.01 * np.where((x + y) % 2, 1, -1)
  step = np.where(x < 35, 0.3, 0.7)
  faint, edge = (np.broadcast_to(a[None, ..., None], photograph.shape) for a in (0.5 + checks, step + checks))
  faint, edge = (denoise(jnp.asarray(a), jnp.array(1.0), jnp.array(threshold)) for a in (faint, edge))
  assert np.ptp(np.asarray(faint)[:, 5:-5, 5:-5]) < 0.1 * np.ptp(checks)
  np.testing.assert_allclose(edge[0, :, :, 0], step, atol=threshold + 0.011)


def test_shares_of_denoised_and_sharpened(photograph):
  light = jnp.asarray((photograph[:1, 8:32, 16:48] / 255) ** 2.2, jnp.float32)
  plain = np.asarray(record(IDEAL)(random.key(0), light, *unchanged(1)))
  for field in ('denoised', 'sharpened'):
    stacks = record_many(dataclasses.replace(IDEAL, **{field: 0.3}), light, 150)
    changed = np.any(stacks != plain, (1, 2, 3, 4))
    np.testing.assert_allclose(changed.mean(), 0.3, atol=0.11)
    sign = np.sign(stacks.var((1, 2, 3, 4)) - plain.var())[changed]
    assert np.all(sign == (1 if field == 'sharpened' else -1))


def test_without_loss_is_the_same_camera(photograph):
  """The same picture from the same key where nothing is lost; and no noise where something is."""
  light = jnp.asarray((photograph[:1] / 255) ** 2.2, jnp.float32)
  lossless = SensorSettings(noiseless=1.0, denoised=0.0, sharpened=1.0, jpeg_quality=None)
  lossy = dataclasses.replace(lossless, noiseless=0.0, denoised=1.0, jpeg_quality=(50.0, 60.0), without_jpeg=0.0)
  expected = record(lossless)(random.key(3), light, *unchanged(1))[0]
  for settings in (lossless, lossy):
    without = jit(functools.partial(sensor.record_without_loss, settings=settings))(random.key(3), light[0])
    np.testing.assert_allclose(without, expected, atol=1e-6)
  assert np.abs(np.asarray(record(lossy)(random.key(3), light, *unchanged(1))[0]) - expected).mean() > 0.003


# JPEG.


@pytest.fixture(scope='module')
def compressed(photograph):
  """{chroma_subsampled: {quality: [2, H, W, 3] in steps of 1}}"""
  display = jnp.asarray(photograph, jnp.float32) / 255

  def at_all_qualities(half):
    images = jit(jax.vmap(lambda quality: jpeg.jpeg(display, quality, half)))(jnp.array(QUALITIES, jnp.float32))
    return dict(zip(QUALITIES, np.round(np.asarray(images, np.float64) * 255), strict=True))

  return {half: at_all_qualities(half) for half in (False, True)}


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((np.float64(a) - np.float64(b)) ** 2))


def by_pillow(image, quality, half):
  with io.BytesIO() as file:
    Image.fromarray(image).save(file, 'JPEG', quality=quality, subsampling=2 if half else 0)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('quality', QUALITIES)
def test_jpeg_is_pillows(photograph, compressed, quality, half):
  """The same loss, and much nearer to Pillow's result than either is to the original."""
  for image, ours in zip(photograph, compressed[half][quality], strict=True):
    pillows = by_pillow(image, quality, half)
    assert abs(psnr(ours, image) - psnr(pillows, image)) < (0.2 if quality < 100 else 1)
    assert psnr(ours, pillows) > psnr(pillows, image) + (3 if quality < 95 else 0)


def test_jpeg_loses_more_at_lower_quality(photograph, compressed):
  loss = [psnr(compressed[False][q], photograph) for q in QUALITIES]
  assert np.all(np.diff(loss) > 1)
  assert loss[-1] > 45


def test_quantisation_is_libjpegs():
  for quality in (1, 20, 49, 50, 75, 100):
    with io.BytesIO() as file:
      Image.new('RGB', (8, 8)).save(file, 'JPEG', quality=quality)
      tables = Image.open(file).quantization
    ours = np.asarray(jpeg.quantisation(jnp.array(quality, jnp.float32)))
    np.testing.assert_array_equal(ours[0].ravel(), tables[0])
    np.testing.assert_array_equal(ours[1].ravel(), tables[1])
    np.testing.assert_array_equal(ours[2], ours[1])


def test_cosine_matrix():
  np.testing.assert_allclose(jpeg.cosine_matrix(), fft.dct(np.eye(8), axis=0, norm='ortho'), atol=1e-12)


def test_share_without_jpeg():
  settings = dataclasses.replace(IDEAL, jpeg_quality=(10.0, 20.0), without_jpeg=0.3)
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


def test_share_of_halved_chroma(photograph):
  """Of the JPEG stacks: those that have it are nearer to Pillow's."""
  settings = dataclasses.replace(IDEAL, jpeg_quality=(90.0, 90.0), without_jpeg=0.0, chroma_subsampled=0.3)
  stacks = record_many(settings, jnp.asarray((photograph[:1] / 255) ** 2.2, jnp.float32), 100)[:, 0] * 255
  full, halved = ([psnr(by_pillow(photograph[0], 90, half), image) for image in stacks] for half in (False, True))
  np.testing.assert_allclose(np.mean(np.array(halved) > full), 0.3, atol=0.13)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('shot_noise', (0.02, 0.01)),
    ('shot_noise', (0.0, 0.01)),
    ('shot_noise', (-0.1, 0.1)),
    ('read_noise', (0.1, 0.0)),
    ('jpeg_quality', (0.0, 90.0)),
    ('jpeg_quality', (50.0, 101.0)),
    ('without_jpeg', 1.5),
    ('noiseless', -0.1),
    ('correlated', 2.0),
    ('denoised', 1.1),
    ('sharpened', -1.0),
    ('chroma_subsampled', 1.2),
    ('vignetting', 1.0),
    ('exposure_stops', (1.0, -1.0)),
    ('saturation', (-0.5, 1.0)),
    ('contrast', (0.2, 1.0)),
  ],
)
def test_bad_settings_name_the_field(field, value):
  with pytest.raises(InputError, match=f'^simulator.sensor.{field} is '):
    SensorSettings(**{field: value})
