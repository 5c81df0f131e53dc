"""Defocus against brute force: rays through many points of a lens in double precision, and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from benchmarks.thin_lens import FOCI, MARGIN, brute_force, disc_points, edges, psnr, sample_scene
from focal_jax import optics
from focal_jax.simulate import defocus

# Fast to compile rather than to run.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def _render(colour, alpha, radius, radii, through_views):
  surfaces = defocus.premultiply(colour, alpha, jnp.zeros(()))
  return defocus.render(surfaces, radius, radii, through_views).swapaxes(1, 2)  # [N, 3, H, W]


render = jit(_render, static_argnums=(3, 4))


@pytest.fixture(scope='module')
def sampled():
  return sample_scene()


def frames_of(sampled, blur, radii, through_views=False):
  colour, alpha, position = sampled
  radius = blur * jnp.abs(position[None] - FOCI[:, None, None, None])
  frames = render(colour, alpha, radius, radii, through_views)
  return np.moveaxis(np.asarray(frames), 1, -1)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize('blur', [3.0, 8.0], ids=['phone', 'wide'])
def test_frames_are_those_of_a_thin_lens(blur, sampled):
  """35 dB on average, 30 dB near the edges of surfaces, of every frame."""
  near = edges(sampled[1])
  frames = frames_of(sampled, blur, defocus.disc_radii(blur))
  expected = [brute_force(disc_points(40), blur, focus) for focus in FOCI]
  assert np.mean([psnr(a, b) for a, b in zip(frames, expected, strict=True)]) > 35
  for frame, truth in zip(frames, expected, strict=True):
    assert psnr(frame[near], truth[near]) > 30
    assert psnr(frame[~near], truth[~near]) > 40


def test_frames_are_those_of_a_grid_of_views(sampled):
  """Neighbouring views 0.25 px apart at the far end of what is in focus at the near end."""
  places = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5), indexing='ij'), -1).reshape(-1, 2)
  frames = frames_of(sampled, 0.3, (0.0, 0.06, 0.12, 0.18, 0.24, 0.3), through_views=True)
  for index in (0, 3):
    truth = brute_force(places[::2], 0.3, FOCI[index])
    assert psnr(frames[index], truth) > 35


def test_what_is_in_focus_is_exactly_sharp(sampled):
  colour, alpha, position = sampled
  position = jnp.full_like(position, 0.4)
  radius = 8 * jnp.abs(position[None] - 0.4)
  (frame,) = render(colour, alpha, radius, defocus.disc_radii(8), False)
  sharp = np.zeros(colour.shape[1:])
  for c, a in zip(np.asarray(colour), np.asarray(alpha), strict=True):
    sharp = c * a + (1 - a) * sharp
  np.testing.assert_allclose(frame, sharp, atol=1e-6)


CANVAS = 64


def impulse_responses(radii, through_views=False):
  """[N, S, S]: a white point on black, seen at each of the radii."""
  colour = np.zeros((1, 3, CANVAS, CANVAS), np.float32)
  colour[:, :, CANVAS // 2, CANVAS // 2] = 1
  radius = jnp.broadcast_to(jnp.array(radii)[:, None, None, None], (len(radii), 1, CANVAS, CANVAS))
  frames = render(jnp.asarray(colour), jnp.ones((1, CANVAS, CANVAS)), radius, tuple(radii), through_views)
  return np.asarray(frames[:, 0], np.float64)


def test_a_point_becomes_the_circle_of_confusion():
  """Its energy, its variance of r^2 / 4 along each axis, and its extent, for the optics of a phone in closed form."""
  depth_m = np.array([0.1, 0.15, 0.2, 0.3, 0.6, 2.0])
  diameter_m = optics.circle_of_confusion(0.0044, 1.7, 0.1, depth_m)
  radii = np.asarray(diameter_m) / 2 / 1.4e-6 * 700 / 4032  # a sensor of 4032 px shown at 700
  assert radii[0] == 0
  assert 3 < radii[-1] < 9
  axis = np.arange(CANVAS) - CANVAS // 2
  distance = np.hypot(axis[:, None], axis)
  for radius, response in zip(radii, impulse_responses([float(r) for r in radii]), strict=True):
    assert response.sum() == pytest.approx(1, abs=1e-4)
    for along in (0, 1):
      assert response.sum(1 - along) @ axis**2 == pytest.approx(radius**2 / 4, rel=0.04, abs=1e-6)
    assert np.abs(response[distance > radius + 1.5]).sum() < 0.06  # what the band limit leaves outside
  np.testing.assert_array_equal(response.shape, (CANVAS, CANVAS))


def test_an_edge_becomes_the_integral_of_the_disc():
  """A step blurred by a disc of radius r: 1/2 + (asin(t) + t sqrt(1 - t^2)) / pi, t = x / r."""
  x = np.arange(CANVAS) - CANVAS / 2 + 0.5
  step = np.broadcast_to(x > 0, (1, 3, CANVAS, CANVAS)).astype(np.float32)
  radii = (0.0, 1.9, 3.4, 6.4, 9.0)
  radius = jnp.broadcast_to(jnp.array(radii)[:, None, None, None], (len(radii), 1, CANVAS, CANVAS))
  frames = render(jnp.asarray(step), jnp.ones((1, CANVAS, CANVAS)), radius, radii, False)
  for r, frame in zip(radii[1:], frames[1:], strict=True):
    t = np.clip(x / r, -1, 1)
    expected = 0.5 + (np.arcsin(t) + t * np.sqrt(1 - t**2)) / np.pi
    inside = np.abs(x) < CANVAS / 2 - 12  # the other step is where the image wraps
    np.testing.assert_allclose(frame[0, CANVAS // 2, inside], expected[inside], atol=0.02)


def test_the_grid_of_views_is_81_points():
  (response,) = impulse_responses([0.0, 2.0], through_views=True)[1:]
  expected = np.zeros((CANVAS, CANVAS))
  expected[CANVAS // 2 - 8 : CANVAS // 2 + 9 : 2, CANVAS // 2 - 8 : CANVAS // 2 + 9 : 2] = 1 / 81
  np.testing.assert_allclose(response, expected, atol=1e-5)


def test_kernels_have_the_variance_of_the_disc():
  for radius in defocus.DISC_RADII_PX[1:6]:
    kernel = defocus.disc_kernel(radius)
    places = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert kernel.sum(0) @ places**2 == pytest.approx(radius**2 / 4, rel=0.04)
    np.testing.assert_array_equal(kernel, kernel.T)
    assert kernel.min() >= 0


def test_correlation_is_scipys():
  rng = np.random.default_rng(0)
  image, kernel = rng.random((20, 24)), defocus.disc_kernel(2.6)
  got = jit(lambda x: defocus.correlate(x, kernel))(jnp.asarray(image[:, None], jnp.float32))
  np.testing.assert_allclose(got[:, 0], ndimage.correlate(image, kernel, mode='nearest'), atol=1e-6)
  for sigma, radius in ((0.8, 3), (1.9, 6)):
    got = jit(defocus.lens_blur)(jnp.asarray(image[None, :, None], jnp.float32), jnp.asarray(sigma))[0, :, 0]
    expected = ndimage.gaussian_filter(image, sigma, radius=radius, mode='nearest')
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_interpolation_between_levels():
  radii = (0.0, 1.0, 3.0)
  levels = [jnp.full((1, 1, 5), value) for value in (10.0, 10.0, 40.0)]
  radius = jnp.array([[0.0, 0.25, 1.0, 2.0, 9.0]])
  np.testing.assert_allclose(defocus.interpolate(levels, radius, radii)[0, 0], [10, 12.5, 20, 40, 60])


@pytest.mark.parametrize(('largest', 'last'), [(0.1, 0.8), (2.0, 2.4), (9.0, 9.0), (100.0, 25.0)])
def test_levels_reach_the_largest_radius(largest, last):
  assert defocus.disc_radii(largest)[-1] == last


def test_highlights_keep_their_energy_and_become_discs():
  """A point of light 20 times white: out of focus it is a disc, brighter than what is around it, of the same energy."""
  colour = np.full((1, 3, CANVAS, CANVAS), 0.2, np.float32)
  colour[:, :, 30:32, 30:32] = 20
  radius = jnp.full((1, 1, CANVAS, CANVAS), 4.6)
  (frame,) = render(jnp.asarray(colour), jnp.ones((1, CANVAS, CANVAS)), radius, defocus.disc_radii(4.6), False)
  assert np.asarray(frame[0], np.float64).sum() == pytest.approx(colour[0, 0].sum(dtype=np.float64), rel=1e-4)
  assert np.asarray(frame[0])[28:34, 28:34].min() > 1


def test_depth_and_aperture_have_gradients():
  rng = np.random.default_rng(0)
  colour = jnp.asarray(rng.random((1, 3, 16, 16)), jnp.float32)

  def contrast(depth, blur):
    radius = blur * jnp.abs(depth - 0.2)
    frames = _render(colour, jnp.ones((1, 16, 16)), radius[None, None], defocus.disc_radii(3), False)
    return jnp.var(frames)

  depth, blur = jnp.full((16, 16), 0.7), jnp.asarray(3.0)
  by_depth, by_blur = jit(jax.grad(contrast, (0, 1)))(depth, blur)
  step = 1e-2
  value = jit(contrast)
  numeric = (value(depth, blur + step) - value(depth, blur - step)) / (2 * step)
  np.testing.assert_allclose(by_blur, numeric, rtol=2e-2)
  assert by_blur < 0
  assert by_depth.sum() < 0
