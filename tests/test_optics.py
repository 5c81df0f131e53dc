"""Closed forms computed by hand, the published constants of DDFF-12, and what happens at infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from focal_jax import optics
from focal_jax.errors import InputError

PUBLISHED_DISPARITIES_PX = [
  0.28247513,
  0.25333087,
  0.22418661,
  0.19504235,
  0.16589809,
  0.13675383,
  0.10760957,
  0.07846531,
  0.04932105,
  0.02017680,
]


def test_image_distance_by_hand():
  # 1 / (1/50 - 1/1050) = 52.5 mm; an object at twice the focal length is imaged at twice the focal length.
  np.testing.assert_allclose(optics.image_distance(50.0, 1050.0), 52.5, rtol=1e-5)
  np.testing.assert_allclose(optics.image_distance(0.05, jnp.array([0.1, 1.05])), [0.1, 0.0525], rtol=1e-5)
  np.testing.assert_allclose(optics.image_distance(0.004, np.inf), 0.004, rtol=1e-6)
  # A lens for each distance.
  pairs = optics.image_distance(jnp.array([0.1, 0.2]), jnp.array([0.2, jnp.inf]))
  np.testing.assert_allclose(pairs, [0.2, 0.2], rtol=1e-5)


def test_relative_field_of_view_by_hand():
  """f = 0.1 m focused at infinity, 1 m and 0.5 m: 1/v = 10, 9, 8 per metre."""
  fov = optics.relative_field_of_view(0.1, jnp.array([jnp.inf, 1.0, 0.5]))
  np.testing.assert_allclose(fov, [10 / 8, 9 / 8, 1], rtol=1e-6)
  # Each stack by its own narrowest frame, whatever the order and the unit.
  fov = optics.relative_field_of_view(100.0, jnp.array([[500.0, jnp.inf], [1000.0, 1000.0]]))
  np.testing.assert_allclose(fov, [[1, 10 / 8], [1, 1]], rtol=1e-6)


def test_circle_of_confusion_by_hand():
  """f = 0.1 m at F/2 (aperture 0.05 m), focused at 0.5 m: v = 0.125 m; at 1 m |2 - 1| / m, at 0.25 m |2 - 4| / m."""
  depth = jnp.array([0.5, 1.0, 0.25, jnp.inf])
  diameter = optics.circle_of_confusion(0.1, 2.0, 0.5, depth)
  np.testing.assert_allclose(diameter, [0, 0.00625, 0.0125, 0.0125], rtol=1e-5, atol=1e-9)
  np.testing.assert_allclose(optics.circle_of_confusion(0.1, 2.0, np.inf, 0.5), 0.1 * 0.05 * 2, rtol=1e-5)
  assert float(optics.circle_of_confusion(0.1, 2.0, np.inf, np.inf)) == 0


def test_both_forms_of_the_circle_of_confusion_agree():
  rng = np.random.default_rng(0)
  focal_length, f_number = 0.0044, 1.7
  focus, depth = rng.uniform(0.1, 5, 50), rng.uniform(0.1, 5, 50)
  v = focal_length * focus / (focus - focal_length)
  expected = v * (focal_length / f_number) / focus * np.abs(depth - focus) / depth
  measured = optics.circle_of_confusion(focal_length, f_number, focus, depth)
  np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-10)


def test_blur_is_linear_in_dioptres():
  """What the simulator relies on: doubling the defocus in dioptres doubles the diameter."""
  diameter = optics.circle_of_confusion(0.0068, 1.9, 0.2, optics.dioptres_to_metres(jnp.array([4.0, 3.0, 1.0, 7.0])))
  np.testing.assert_allclose(diameter / diameter[0], [1, 2, 4, 2], rtol=1e-4)


def test_units_of_depth():
  np.testing.assert_allclose(optics.dioptres_to_metres(jnp.array([2.0, 0.25, 0.0])), [0.5, 4, np.inf])
  np.testing.assert_allclose(optics.DDFF_BASELINE_M, 2.708787e-4, rtol=1e-6)
  np.testing.assert_allclose(optics.DDFF_DISPARITY_M_PX, 0.14123756581733507, rtol=1e-12)


def test_ddff_focus_disparities_are_the_published_ones():
  focus = optics.ddff_focus_disparities()
  np.testing.assert_allclose(focus, PUBLISHED_DISPARITIES_PX, atol=5e-9)
  np.testing.assert_allclose(optics.DDFF_DISPARITY_M_PX / focus[[0, -1]], [0.5, 7], rtol=1e-6)
  assert optics.ddff_focus_disparities(5).shape == (5,)


def test_corrected_focus_of_ddff():
  labels, corrected = optics.ddff_focus_disparities(), optics.ddff_focus_disparities(corrected=True)
  np.testing.assert_allclose(corrected - labels, 0.062, rtol=1e-12)
  # The farthest frame is sharp where the depth is 1.72 m; what is beyond is nowhere in focus.
  assert optics.DDFF_DISPARITY_M_PX / corrected[-1] == pytest.approx(0.1412379 / 0.0821769, rel=1e-4)


def test_traced_and_differentiated():
  """d/dd of v = 1 / (1/f - 1/d) is -(v / d)^2."""
  slope = jax.jit(jax.grad(optics.image_distance, argnums=1))(0.05, 1.05)
  np.testing.assert_allclose(slope, -((0.0525 / 1.05) ** 2), rtol=1e-4)


def test_good_focus_distances_pass():
  optics.check_focus_distances(np.array([np.inf, 1.0, 0.0051]), 0.005)
  optics.check_focus_distances(np.array(0.3), 0.005)


@pytest.mark.parametrize(
  ('distances', 'frame', 'value'),
  [
    ([1.0, 0.0, 0.3], 1, '0.0'),
    ([1.0, 0.5, -0.3], 2, '-0.3'),
    ([np.nan, 0.5], 0, 'nan'),
    ([1.0, -np.inf], 1, '-inf'),
    ([np.inf, 1.0, 0.004], 2, '0.004'),  # inside the focal length
    ([0.005, 1.0], 0, '0.005'),  # at the focal length: the image is at infinity
  ],
)
def test_bad_focus_distances_name_frame_value_and_source(distances, frame, value):
  with pytest.raises(InputError, match=f'^stack.json: .*frame {frame} is {value}') as error:
    optics.check_focus_distances(np.array(distances), 0.005, 'stack.json')
  assert 'expected' in str(error.value)


@pytest.mark.parametrize('focal_length', [0.0, -0.005, np.nan, np.inf])
def test_bad_focal_length_is_named(focal_length):
  with pytest.raises(InputError, match=f'focal length is {focal_length}, expected'):
    optics.check_focus_distances(np.array([1.0]), focal_length)
