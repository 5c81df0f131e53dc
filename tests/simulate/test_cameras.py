"""Cameras against published tables and closed forms; sweeps of all presets against the camera that each must be of."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from PIL import Image

from focal_jax import optics
from focal_jax.errors import InputError
from focal_jax.simulate import cameras, focus_sweep
from focal_jax.simulate.cameras import CAMERAS, PHONES, UNITS, Camera, SweepSettings
from focal_jax.simulate.focus_sweep import draw_sweep

FRAMES, WIDTH = 7, 300
MINE = Camera('mine', focal_length_m=0.02, f_number=4.0, sensor_width_px=1000.0, focus_m=(2.0, 0.5))
ALL = CAMERAS | {'mine': MINE}
# What the camera itself does, and nothing more.
PLAIN = SweepSettings(
  cameras=(*CAMERAS, MINE),
  far_dpt=None,
  range_dpt=None,
  spacing='camera',
  uneven=0.0,
  blur_px=None,
  breathing=(1.0, 1.0),
  zoom=(0.5, 2.0),
  shake_px=(0.0, 0.0),
  aligned=0.0,
  no_metadata=0.0,
)
DRAWN = SweepSettings(
  cameras=('pixel_6', 'ddff12'), spacing='random', uneven=0.5, exposure=(0.1, 0.1), white_balance=(0.2, 0.2)
)


def draw_sweeps(settings, num_sweeps, num_frames=FRAMES):
  draw = jax.vmap(lambda key: draw_sweep(key, num_frames, WIDTH, settings))
  draw = jax.jit(draw, compiler_options={'xla_backend_optimization_level': 0})
  return jax.tree.map(np.asarray, draw(random.split(random.key(0), num_sweeps)))


@pytest.fixture(scope='module')
def drawn():
  """512 random sweeps."""
  return draw_sweeps(DRAWN, 512)


def pixels_per_dioptre(camera):
  """Diameter of the blur in the last frame, px of the sensor, by `circle_of_confusion` between near and far end."""
  far, near = camera.focus_m[0], camera.focus_m[-1]
  if camera.aligned:  # the image distance stays f: (f / F) f
    return camera.focal_length_m**2 / camera.f_number / camera.pixel_pitch_m
  diameter = optics.circle_of_confusion(camera.focal_length_m, camera.f_number, near, far)
  return float(diameter) / camera.pixel_pitch_m / (1 / near - 1 / far)


@pytest.fixture(scope='module')
def by_camera():
  """{name: sweeps} of 512, told apart by the size of the blur, which no two of them share."""
  sweeps = draw_sweeps(PLAIN, 512)
  expected = [
    pixels_per_dioptre(c) * WIDTH / c.sensor_width_px / (8 if c.kernel == 'views' else 2) for c in ALL.values()
  ]
  error = np.abs(np.log(sweeps.blur_px_per_dpt[:, None] / expected))
  assert error.min(1).max() < 1e-4
  assert np.sort(error, axis=1)[:, 1].min() > 1e-2
  which = error.argmin(1)
  return {name: jax.tree.map(functools.partial(np.compress, which == i, axis=0), sweeps) for i, name in enumerate(ALL)}


# Cameras.


def test_phones_are_the_measured_ones():
  phones = [CAMERAS[name] for name in PHONES]
  assert PHONES == ('pixel_4_xl', 'pixel_6', 'galaxy_s8_plus', 'galaxy_note_10')
  assert [p.sensor_width_px for p in phones] == [4032, 4080, 4032, 4032]
  assert [p.focal_length_m for p in phones] == [0.0044, 0.0068, 0.0043, 0.0048]
  assert [p.f_number for p in phones] == [1.7, 1.9, 1.5, 1.7]
  assert [p.alpha_slope_m for p in phones] == [-0.00266, -0.00429249, -0.00203839, -0.00402384]
  assert [p.alpha_intercept for p in phones] == [0.019155, 0.00330253, 0.0166955, 0.0247385]
  assert [p.beta_px for p in phones] == [
    (-4.45515, 7.18485),
    (0.470281, 6.2634662),
    (4.430173117, 4.60067699),
    (-4.315575939, 2.9198626),
  ]
  assert [p.gamma_px for p in phones] == [
    (-9.9504701, 8.04556863),
    (2.69174424, 6.859772247),
    (3.695449964, 3.589144555),
    (-0.9456601, 0.153538997),
  ]
  for phone in phones:
    assert (phone.pixel_pitch_m, phone.focus_m, phone.num_frames) == (1.4e-6, (0.9, 0.1), 10)
    assert (phone.unit, phone.kernel, phone.aligned) == ('1/m', 'disc', False)


def test_the_other_presets():
  assert list(CAMERAS) == [*PHONES, 'tablet', 'dslr', 'defocusnet', 'ddff12']
  dslr, defocusnet, ddff = (CAMERAS[name] for name in ('dslr', 'defocusnet', 'ddff12'))
  np.testing.assert_allclose(dslr.sensor_width_px * dslr.pixel_pitch_m, 0.036)
  np.testing.assert_allclose(defocusnet.sensor_width_px * defocusnet.pixel_pitch_m, 0.0031)
  assert (defocusnet.unit, defocusnet.aligned, defocusnet.focus_m) == ('m', True, (1.5, 0.7, 0.3, 0.15, 0.1))
  assert (ddff.unit, ddff.aligned, ddff.kernel) == ('px', True, 'views')
  np.testing.assert_allclose(ddff.focal_length_m / ddff.pixel_pitch_m, optics.DDFF_FOCAL_LENGTH_PX)


def test_tablet_is_the_one_in_the_exif(shared):
  tablet = CAMERAS['tablet']
  folder = shared / 'data' / 'stacks' / 'tablet_exif'
  if not folder.is_dir():
    pytest.skip(f'{folder} is not there')
  exif = []
  for path in sorted(folder.glob('*.jpg')):
    with Image.open(path) as image:
      exif.append(image.getexif().get_ifd(0x8769))
  assert tablet.num_frames == len(exif)
  np.testing.assert_allclose([float(e[0x920A]) for e in exif], tablet.focal_length_m * 1e3)
  np.testing.assert_allclose([float(e[0x829D]) for e in exif], tablet.f_number)
  ends = [float(exif[i][0x9206]) for i in (0, -1)]  # dioptres, in the field for the distance
  np.testing.assert_allclose(tablet.sweep_dpt(11)[[0, -1]], ends)


@pytest.mark.parametrize('num_frames', [2, 3, 5, 10, 49])
def test_usual_sweeps_of_any_length(num_frames):
  for camera in CAMERAS.values():
    sweep = camera.sweep_dpt(num_frames)
    assert len(sweep) == num_frames
    assert np.all(np.diff(sweep) > 0)
    np.testing.assert_allclose(sweep[[0, -1]], [1 / camera.focus_m[0], 1 / camera.focus_m[-1]])
    if camera.name != 'defocusnet':
      np.testing.assert_allclose(np.diff(sweep, 2), 0, atol=1e-12)


def test_listed_focus_distances_are_kept():
  np.testing.assert_allclose(1 / CAMERAS['defocusnet'].sweep_dpt(5), [1.5, 0.7, 0.3, 0.15, 0.1])
  # Half way between the first two, and between the last two, in dioptres.
  np.testing.assert_allclose(
    CAMERAS['defocusnet'].sweep_dpt(9)[[1, -2]], [(1 / 1.5 + 1 / 0.7) / 2, (1 / 0.15 + 10) / 2]
  )


def test_units():
  """Values and slopes, both finite at infinity."""
  dioptres = np.array([0.0, 0.5, 2.0, 10.0], np.float32)
  convert = jax.jit(jax.vmap(lambda unit: jax.vmap(jax.value_and_grad(focus_sweep.to_unit), (0, None))(dioptres, unit)))
  values, slopes = (dict(zip(UNITS, rows, strict=True)) for rows in convert(jnp.arange(3)))
  np.testing.assert_array_equal(values['1/m'], dioptres)
  np.testing.assert_allclose(values['px'], dioptres * 0.14123756581733507, rtol=1e-6)
  np.testing.assert_allclose(values['m'], [1e6, 2.0, 0.5, 0.1], rtol=1e-6)
  np.testing.assert_array_equal(slopes['1/m'], 1)
  np.testing.assert_allclose(slopes['px'], 0.14123756581733507, rtol=1e-6)
  np.testing.assert_allclose(slopes['m'], [0, -4, -0.25, -0.01], rtol=1e-5)


# Sweeps that the camera alone decides.


def test_focus_is_the_cameras(by_camera):
  """In dioptres and in its own unit, far to near."""
  for name, sweeps in by_camera.items():
    camera = ALL[name]
    assert len(sweeps.focus) > 30, name
    expected = camera.sweep_dpt(FRAMES)
    in_unit = {'1/m': expected, 'px': 0.14123756581733507 * expected, 'm': 1 / np.maximum(expected, 0.1)}[camera.unit]
    np.testing.assert_allclose(sweeps.focus_dpt, np.tile(expected, (len(sweeps.focus), 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sweeps.focus, np.tile(in_unit, (len(sweeps.focus), 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sweeps.unit, UNITS.index(camera.unit))
    np.testing.assert_array_equal(sweeps.views, camera.kernel == 'views')
    assert sweeps.unit.dtype == np.int32


def test_physical_blur(by_camera):
  """By hand: between the ends of the sweep, for the rendered width; of DDFF-12 the disparity of neighbouring views."""
  blur = {name: sweeps.blur_px_per_dpt[0] for name, sweeps in by_camera.items()}
  # v f / F / pitch: 4.4 mm at F/1.7, focused at 0.1 m.
  v = 1 / (1 / 0.0044 - 10)
  np.testing.assert_allclose(blur['pixel_4_xl'], v * 0.0044 / 1.7 / 1.4e-6 / 2 * 300 / 4032, rtol=1e-5)
  v = 0.05 * 0.45 / 0.4
  np.testing.assert_allclose(blur['dslr'], v * 0.05 / 1.8 / 0.036 / 2 * 300, rtol=1e-5)
  np.testing.assert_allclose(blur['defocusnet'], 0.0029**2 / 0.0031 / 2 * 300, rtol=1e-5)
  np.testing.assert_allclose(blur['ddff12'], 0.14123756581733507 * 300 / 552, rtol=1e-5)
  # At its own width, DDFF-12's grid is as far apart as the disparities of focus and depth.
  ddff = by_camera['ddff12']
  np.testing.assert_allclose(
    blur['ddff12'] * 552 / 300 * np.diff(ddff.focus_dpt), np.diff(ddff.focus), rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(ddff.focus[0, [0, -1]], optics.ddff_focus_disparities()[[-1, 0]], rtol=1e-5)


def test_field_of_view_and_breathing(by_camera):
  """The thin lens's, and the zoom beyond it, relative to the last frame; nothing of the kind where it is aligned."""
  for name, sweeps in by_camera.items():
    camera = ALL[name]
    dioptres = camera.sweep_dpt(FRAMES)
    inverse_v = 1 / camera.focal_length_m - dioptres
    fov = inverse_v / inverse_v[-1]
    alpha = camera.alpha_slope_m * dioptres + camera.alpha_intercept
    zoom = (fov + alpha) / (1 + alpha[-1])
    if camera.aligned:
      np.testing.assert_array_equal(sweeps.fov, 1)
      np.testing.assert_array_equal(sweeps.motion, 0)
    else:
      np.testing.assert_allclose(sweeps.fov, np.tile(fov, (len(sweeps.fov), 1)), atol=2e-6)
      np.testing.assert_allclose(sweeps.motion[..., 0], np.tile(zoom - fov, (len(sweeps.fov), 1)), atol=4e-6)
      np.testing.assert_array_equal(sweeps.motion[:, -1, 1:], 0)
  tablet = by_camera['tablet']
  np.testing.assert_allclose(tablet.fov[:, 0], 1.022, atol=5e-4)
  np.testing.assert_allclose(tablet.fov[:, 0] + tablet.motion[:, 0, 0], 1.040, atol=5e-4)


def test_drift_is_the_cameras_at_the_width_of_the_image(by_camera):
  """Every frame's own, less that of the last: variance 2 (sd scale)^2, mean 0."""
  for name, sweeps in by_camera.items():
    camera = ALL[name]
    for drift, (_, sd) in zip(
      np.moveaxis(sweeps.motion[:, :-1, 1:], -1, 0), (camera.beta_px, camera.gamma_px), strict=True
    ):
      sd = sd * math.sqrt(2) * WIDTH / camera.sensor_width_px
      np.testing.assert_allclose(np.sqrt(np.mean(drift**2)), sd, rtol=0.25, atol=1e-9, err_msg=name)


# Sweeps that are drawn.


def test_random_spacing_and_drawn_range(drawn):
  focus = drawn.focus_dpt
  extent = focus[:, -1] - focus[:, 0]
  for values, (low, high) in ((focus[:, 0], DRAWN.far_dpt), (extent, DRAWN.range_dpt)):
    assert low - 1e-5 <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high + 1e-5
  steps = np.diff(focus) / extent[:, None]
  assert steps.min() > 0
  np.testing.assert_allclose(steps.mean(0), 1 / (FRAMES - 1), rtol=0.1)
  assert steps.std() > 0.3 / (FRAMES - 1)


def test_drawn_blur_reaches_from_end_to_end(drawn):
  """A radius between far and near end, log-uniform; of views an eighth of twice that."""
  radius = drawn.blur_px_per_dpt * (drawn.focus_dpt[:, -1] - drawn.focus_dpt[:, 0])
  assert 0.3 < drawn.views.mean() < 0.7
  low, high = np.log(DRAWN.blur_px)
  for values in (radius[drawn.views == 0], 4 * radius[drawn.views == 1]):
    assert low - 1e-3 < np.log(values).min() < low + 0.1
    assert high - 0.1 < np.log(values).max() < high + 1e-3
    np.testing.assert_allclose(np.log(values).mean(), (low + high) / 2, atol=0.15)


def test_motion_is_relative_to_the_last_frame(drawn):
  zoom = drawn.fov + drawn.motion[..., 0]
  np.testing.assert_allclose(zoom[:, -1], 1, atol=1e-6)
  np.testing.assert_allclose(drawn.motion[:, -1], 0, atol=1e-6)
  assert DRAWN.zoom[0] - 1e-5 < zoom.min()
  assert zoom.max() < DRAWN.zoom[1] + 1e-5
  phone, ddff = drawn.views == 0, drawn.views == 1
  np.testing.assert_array_equal(drawn.motion[ddff], 0)
  np.testing.assert_allclose(np.all(drawn.motion[phone] == 0, (1, 2)).mean(), DRAWN.aligned, atol=0.08)
  np.testing.assert_allclose(np.all(drawn.fov[phone] == 1, 1).mean(), DRAWN.aligned + DRAWN.no_metadata, atol=0.1)


@pytest.mark.parametrize('limit', [1.1, 1.003])
def test_metadata_do_not_contradict_the_limits_of_the_zoom(limit):
  """A thin lens of 50 mm would tell a field of view of 1.4 at 0.15 m: it has that of a shorter lens."""
  settings = dataclasses.replace(DRAWN, cameras=('dslr', 'tablet'), zoom=(0.96, limit), aligned=0.0, no_metadata=0.0)
  sweeps = draw_sweeps(settings, 256)
  unlimited = draw_sweeps(dataclasses.replace(settings, zoom=(0.5, 2.0)), 256)
  np.testing.assert_array_equal(sweeps.focus_dpt, unlimited.focus_dpt)
  np.testing.assert_array_equal(sweeps.blur_px_per_dpt, unlimited.blur_px_per_dpt)
  within = unlimited.fov[:, 0] < limit
  np.testing.assert_array_equal(sweeps.fov[within], unlimited.fov[within])
  assert np.sum(~within) > 64
  fov, dioptres = sweeps.fov[~within].astype(np.float64), sweeps.focus_dpt[~within].astype(np.float64)
  np.testing.assert_allclose(fov[:, 0], limit, atol=1e-4)
  # fov (1 - f d_n) = 1 - f d, solved for f by the first frame.
  focal_length = (limit - 1) / (limit * dioptres[:, -1:] - dioptres[:, :1])
  np.testing.assert_allclose(fov, (1 - focal_length * dioptres) / (1 - focal_length * dioptres[:, -1:]), atol=1e-4)


def test_any_zoom_is_of_either_sign_and_linear_and_not_told():
  settings = dataclasses.replace(
    DRAWN, cameras=('pixel_6',), zoom=(0.9, 1.1), shake_px=(0.0, 0.0), aligned=0.0, no_metadata=0.6, any_zoom=0.6
  )
  sweeps = draw_sweeps(settings, 512)
  free = np.all(sweeps.fov == 1, axis=1)
  np.testing.assert_allclose(free.mean(), 0.6, atol=0.08)
  zoom, dioptres = 1 + sweeps.motion[free][..., 0], sweeps.focus_dpt[free]
  share = (dioptres[:, -1:] - dioptres) / (dioptres[:, -1:] - dioptres[:, :1])
  np.testing.assert_allclose(zoom - 1, (zoom[:, :1] - 1) * share, atol=1e-4)
  logs = np.log(zoom[:, 0])
  assert np.log(0.9) - 1e-3 < logs.min() < np.log(0.9) + 0.01
  assert np.log(1.1) - 0.01 < logs.max() < np.log(1.1) + 1e-3
  # The others are as they were.
  without = draw_sweeps(dataclasses.replace(settings, any_zoom=0.0), 512)
  np.testing.assert_array_equal(sweeps.motion[~free], without.motion[~free])
  with pytest.raises(InputError, match=r'simulator\.sweep\.any_zoom is 0\.7, expected a share from 0 to no_metadata'):
    dataclasses.replace(settings, any_zoom=0.7)


def test_exposure_and_white_balance(drawn):
  """Relative to the last frame; green keeps its gain; a refocused light field has one exposure."""
  for values in (drawn.exposure[:, -1], drawn.white_balance[:, -1], drawn.white_balance[..., 1]):
    np.testing.assert_array_equal(values, 1)
  phone, ddff = drawn.views == 0, drawn.views == 1
  np.testing.assert_array_equal(drawn.exposure[ddff], 1)
  np.testing.assert_array_equal(drawn.white_balance[ddff], 1)
  exposure, balance = np.log2(drawn.exposure[phone, :-1]), np.log2(drawn.white_balance[phone, :-1][..., ::2])
  np.testing.assert_allclose(exposure.std(), 0.1, rtol=0.1)
  np.testing.assert_allclose(balance.std((0, 1)), 0.2, rtol=0.1)
  assert abs(np.corrcoef(balance[..., 0].ravel(), balance[..., 1].ravel())[0, 1]) < 0.1


def test_the_key_decides(drawn):
  again = draw_sweeps(DRAWN, 512)
  for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  assert len(np.unique(drawn.focus[:, 0])) > 500


@pytest.mark.parametrize('spacing', cameras.SPACINGS)
def test_two_frames_are_enough(spacing):
  settings = dataclasses.replace(SweepSettings(), spacing=spacing)
  leaves = jax.eval_shape(lambda key: jax.tree.leaves(draw_sweep(key, 2, WIDTH, settings)), random.key(0))
  shapes = [leaf.shape for leaf in leaves]
  assert shapes == [(2,), (2,), (2,), (2, 3), (), (), (2,), (2, 3), ()]


# What cannot be.


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    ('focal_length_m', 0.0, 'a finite number above 0'),
    ('focal_length_m', -0.02, 'a finite number above 0'),
    ('f_number', 0.0, 'a finite number above 0'),
    ('sensor_width_px', math.nan, 'a finite number above 0'),
    ('pixel_pitch_m', math.inf, 'a finite number above 0'),
    ('focus_m', (1.0,), 'at least two distances'),
    ('focus_m', (0.5, 2.0), 'far to near'),
    ('focus_m', (0.5, 0.5), 'far to near'),
    ('focus_m', (0.5, 0.02), 'all beyond the focal length 0.02'),
    ('num_frames', 1, 'at least 2'),
    ('unit', 'mm', 'one of 1/m, px, m'),
    ('kernel', 'hexagon', 'one of disc, views'),
  ],
)
def test_bad_cameras_name_the_field(field, value, expected):
  with pytest.raises(InputError, match=f'^camera mine: {field} is .*, expected {expected}$'):
    dataclasses.replace(MINE, **{field: value})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'cameras': ('pixel_6', 'pixel_7')}, "camera 'pixel_7' is not known, expected one of pixel_4_xl, .*, ddff12"),
    ({'cameras': ()}, r'simulator.sweep.cameras is \(\), expected at least one'),
    ({'far_dpt': (2.0, 0.0)}, r'simulator.sweep.far_dpt is \(2.0, 0.0\), expected two numbers, the lower first'),
    ({'shake_px': (1.0, 0.0)}, r'simulator.sweep.shake_px is \(1.0, 0.0\), expected two numbers, the lower first'),
    ({'range_dpt': (0.0, 1.0)}, 'simulator.sweep.range_dpt is .*, expected more than 0'),
    ({'spacing': 'even'}, "simulator.sweep.spacing is 'even', expected one of dioptres, random, camera"),
    ({'uneven': 1.0}, 'simulator.sweep.uneven is 1.0, expected a number from 0 to below 1'),
    ({'cameras': ('defocusnet',)}, 'simulator.sweep.far_dpt is .* more than 0 for defocusnet with unit m'),
    ({'cameras': (MINE,), 'range_dpt': (2.0, 48.0)}, 'simulator.sweep.range_dpt is .* beyond the focal length of mine'),
  ],
)
def test_bad_settings_name_the_field(fields, message):
  with pytest.raises(InputError, match=message):
    SweepSettings(**fields)


def test_one_frame_is_no_sweep():
  with pytest.raises(InputError, match='num_frames is 1, expected at least 2'):
    draw_sweep(random.key(0), 1, WIDTH, SweepSettings())
