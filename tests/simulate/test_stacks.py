"""Whole stacks: truth against loops over pixels, and motion undone by `warp`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from focal_jax import optics, warp
from focal_jax.errors import InputError
from focal_jax.simulate import defocus, stacks
from focal_jax.simulate.cameras import CAMERAS, UNITS, SweepSettings
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.focus_sweep import Sweep
from focal_jax.simulate.scenes import Scene, SceneSettings
from focal_jax.simulate.sensor import GAMMA, IDEAL, SensorSettings
from focal_jax.simulate.stacks import SimulatorSettings

HEIGHT, WIDTH, MARGIN, FRAMES, SURFACES = 32, 40, 16, 5, 3
CANVAS = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
SETTINGS = SimulatorSettings(
  num_frames=FRAMES,
  height_px=HEIGHT,
  width_px=WIDTH,
  num_surfaces=SURFACES,
  margin_px=MARGIN,
  lens_sigma_px=(0.0, 0.0),
  sensor=IDEAL,
)
# Compiled once each, for one shape, and fast to compile rather than to run.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
photograph = jit(lambda scene, sweep: stacks.photograph(random.key(0), scene, sweep, SETTINGS))
warped = jit(warp.warp)
coverage = jit(warp.coverage, static_argnums=(2, 3))


@pytest.fixture(scope='module')
def batches():
  """Batches of two stacks of procedural scenes from the keys 0, 0 and 1, with lens blur and sensor."""
  settings = dataclasses.replace(SETTINGS, lens_sigma_px=(0.15, 1.6), sensor=SensorSettings())
  simulate = jit(lambda key: stacks.simulate_batch(random.split(key, 2), settings))
  return [jax.tree.map(np.asarray, simulate(random.key(seed))) for seed in (0, 0, 1)]


def on_device(values):
  return jax.device_put(np.asarray(values, np.float32))


def still_sweep(focus_dpt, blur_px_per_dpt):
  n = len(focus_dpt)
  return Sweep(
    focus=on_device(focus_dpt),
    focus_dpt=on_device(focus_dpt),
    fov=on_device(np.ones(n)),
    motion=on_device(np.zeros((n, 3))),
    blur_px_per_dpt=on_device(blur_px_per_dpt),
    views=on_device(0),
    exposure=on_device(np.ones(n)),
    white_balance=on_device(np.ones((n, 3))),
    unit=jax.device_put(np.int32(0)),
  )


def plain_scene(colour, position):
  """A background of the given colour [3, H, W] and position; the other surfaces are transparent."""
  is_background = np.arange(SURFACES) == 0
  return Scene(
    colour=on_device(np.stack([colour] * SURFACES)),
    alpha=on_device(is_background[:, None, None] * np.ones(CANVAS)),
    position=on_device(np.broadcast_to(position, (SURFACES, *CANVAS))),
    known=on_device(np.ones(CANVAS)),
  )


def display(linear):
  """As `photograph` encodes: [3, H, W] linear light to [H, W, 3] display values in steps of 1/255."""
  return np.round(np.moveaxis(np.asarray(linear, np.float64), 0, -1) ** (1 / 2.2) * 255) / 255


def crop(canvas):
  return np.asarray(canvas)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def test_the_key_decides(batches):
  first, again, other = batches
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  for name in ('images', 'focus', 'target', 'all_in_focus'):
    assert not np.array_equal(getattr(first, name), getattr(other, name)), name
    assert not np.array_equal(getattr(first, name)[0], getattr(first, name)[1]), name


def test_batches_are_as_documented(batches):
  for batch in batches[1:]:
    assert batch.images.shape == (2, FRAMES, HEIGHT, WIDTH, 3)
    assert batch.focus.shape == batch.fov.shape == (2, FRAMES)
    assert batch.target.shape == batch.valid.shape == (2, HEIGHT, WIDTH)
    assert batch.all_in_focus.shape == (2, HEIGHT, WIDTH, 3)
    assert batch.motion.shape == (2, FRAMES, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.float32)}
    for images in (batch.images, batch.all_in_focus):
      np.testing.assert_allclose(images * 255, np.round(images * 255), atol=1e-4)
      assert images.min() >= 0
      assert images.max() <= 1
      assert images.std() > 0.05
    assert np.all(np.diff(batch.focus) > 0)
    assert np.all(batch.target >= batch.focus[:, :1, None] - 1e-5)
    assert np.all(batch.target <= batch.focus[:, -1:, None] + 1e-5)


@pytest.mark.slow
def test_stacks_side_by_side_are_those_one_after_the_other(batches):
  """`vmap` over keys gives the batch of `simulate_batch`, but for the rounding of other programs."""
  settings = dataclasses.replace(SETTINGS, lens_sigma_px=(0.15, 1.6), sensor=SensorSettings())
  keys = random.split(random.key(1), 2)
  rendered = jit(jax.vmap(lambda key: stacks.simulate(key, settings)))(keys)
  np.testing.assert_allclose(rendered.target, batches[2].target, atol=1e-4)
  difference = np.abs(np.asarray(rendered.images) - batches[2].images)
  assert np.mean(difference > 1.01 / 255) < 1e-3


def test_depth_and_camera_have_gradients():
  """Of the contrast of the frames, by the place of a plane and by the size of the blur, against differences."""
  rng = np.random.default_rng(0)
  colour = rng.uniform(0.2, 0.8, (3, *CANVAS)).astype(np.float32)
  sweep = still_sweep([1.0, 2.0, 3.0, 4.0, 5.0], 0.5)

  def contrast(place, blur):
    scene = plain_scene(colour, 0.0).replace(position=jnp.broadcast_to(place, (SURFACES, *CANVAS)))
    frames = stacks.photograph(random.key(0), scene, sweep.replace(blur_px_per_dpt=blur), SETTINGS).images
    return jnp.var(frames[0])

  compiled = jit(jax.value_and_grad(contrast, (0, 1)))

  def value(place, blur):
    return compiled(place, blur)[0]

  place, blur, step = jnp.asarray(0.55), jnp.asarray(0.8), 0.02
  _, (by_place, by_blur) = compiled(place, blur)
  assert by_place < 0  # farther from the first frame's focus
  assert by_blur < 0
  np.testing.assert_allclose(by_place, (value(place + step, blur) - value(place - step, blur)) / (2 * step), rtol=0.05)
  np.testing.assert_allclose(by_blur, (value(place, blur + step) - value(place, blur - step)) / (2 * step), rtol=0.05)


@pytest.fixture(scope='module')
def checks():
  """Random colour on the canvas, as sharp as can be."""
  return np.random.default_rng(2).uniform(0.02, 1, (3, *CANVAS)).astype(np.float32)


def test_a_frame_is_sharp_exactly_where_it_is_focused(checks):
  """A plane at the third of five distances; then one half of it there and the other half at the last."""
  focus = [1.0, 2.0, 3.0, 4.0, 5.0]
  sharp = display(crop(checks))
  stack = photograph(plain_scene(checks, 0.5), still_sweep(focus, 1.5))
  np.testing.assert_allclose(stack.images[2], sharp, atol=1.01 / 255)  # one step, where rounding is a tie
  np.testing.assert_array_equal(stack.all_in_focus, stack.images[2])
  error = np.abs(np.asarray(stack.images) - sharp).mean((1, 2, 3))
  assert error[2] < 1e-3
  assert np.all(error[[0, 1, 3, 4]] > 0.05)
  np.testing.assert_allclose(error[[0, 1]], error[[4, 3]], rtol=1e-3)  # the same on both sides in dioptres
  np.testing.assert_array_equal(stack.target, 3)

  halves = np.where(np.arange(CANVAS[1]) < CANVAS[1] // 2, 0.5, 1.0)
  stack = photograph(plain_scene(checks, halves), still_sweep(focus, 1.5))
  error = np.abs(np.asarray(stack.images) - sharp).mean((1, 3))  # [N, W]
  assert error[2, : WIDTH // 2].max() < 2e-3
  assert error[4, WIDTH // 2 :].max() < 2e-3
  assert error[2, WIDTH // 2 :].min() > 0.04
  assert error[4, : WIDTH // 2].min() > 0.04


def random_scene(seed):
  """Three random surfaces at random, slanted positions, the nearer two with holes."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] / CANVAS[1] - 0.5
  slopes = rng.uniform(-0.3, 0.3, (2, SURFACES, 1, 1))
  alpha = rng.random((SURFACES, *CANVAS)) > 0.6
  alpha[0] = True
  return Scene(
    colour=on_device(rng.random((SURFACES, 3, *CANVAS))),
    alpha=on_device(alpha),
    position=on_device(np.array([0.1, 0.5, 0.9])[:, None, None] + slopes[0] * y + slopes[1] * x),
    known=on_device(rng.random(CANVAS) > 0.1),
  )


def test_truth_is_that_of_the_nearest_surface():
  """A loop from near to far over surfaces and pixels; what lies outside the sweep, or is not known, is not valid."""
  scene, sweep = random_scene(0), still_sweep(np.linspace(1, 3, FRAMES), 1.0)
  stack = photograph(scene, sweep)
  alpha, position, known, colour = (crop(getattr(scene, name)) for name in ('alpha', 'position', 'known', 'colour'))
  target, valid, sharp = np.empty((HEIGHT, WIDTH)), np.empty((HEIGHT, WIDTH)), np.empty((HEIGHT, WIDTH, 3))
  for y, x in np.ndindex(HEIGHT, WIDTH):
    surface = next(k for k in reversed(range(SURFACES)) if alpha[k, y, x] > 0.5)
    place = float(position[surface, y, x])
    valid[y, x] = known[y, x] * (0 <= place <= 1)
    target[y, x] = 1 + min(max(place, 0), 1) * 2
    sharp[y, x] = colour[surface, :, y, x] ** (1 / 2.2)
  assert 0.02 < 1 - valid.mean() < 0.5
  np.testing.assert_allclose(stack.target, target, atol=1e-5)
  np.testing.assert_array_equal(stack.valid, valid)
  np.testing.assert_allclose(stack.all_in_focus, sharp, atol=0.51 / 255)


def test_what_lies_beyond_the_sweep_can_count_as_its_end():
  places = np.where(np.arange(CANVAS[1]) < CANVAS[1] // 2, -0.5, 1.1)
  scene = plain_scene(np.random.default_rng(1).random((3, *CANVAS)), places)
  sweep = still_sweep([1.0, 1.5, 2.0, 2.5, 3.0], 1.0)
  settings = dataclasses.replace(SETTINGS, ends_valid=True)
  without = photograph(scene, sweep)
  counted = jit(lambda scene: stacks.photograph(random.key(0), scene, sweep, settings))(scene)
  np.testing.assert_array_equal(without.valid, 0)
  np.testing.assert_array_equal(counted.valid, 1)
  np.testing.assert_array_equal(counted.target, np.where(crop(places * np.ones(CANVAS)) < 0, 1.0, 3.0))
  np.testing.assert_array_equal(counted.images, without.images)


@functools.cache
def photograph_beyond(ends_valid):
  """As `photograph`, with true depth that extends beyond the sweep by a quarter of its range."""
  settings = dataclasses.replace(SETTINGS, truth_beyond=0.25, ends_valid=ends_valid)
  return jit(lambda scene, sweep: stacks.photograph(random.key(0), scene, sweep, settings))


@pytest.mark.parametrize(('unit', 'expected'), [('1/m', (0.5, 3.2)), ('m', (1.0, 1 / 3))])
def test_truth_beyond_the_sweep_reaches_as_far_as_asked_for(unit, expected):
  places = np.where(np.arange(CANVAS[1]) < CANVAS[1] // 2, -0.5, 1.1)  # the farther one farther than that
  scene = plain_scene(np.random.default_rng(1).random((3, *CANVAS)), places)
  sweep = still_sweep([1.0, 2.0, 3.0], 1.0).replace(unit=jax.device_put(np.int32(UNITS.index(unit))))
  for ends_valid in (True, False):
    stack = photograph_beyond(ends_valid)(scene, sweep)
    is_far = crop(places * np.ones(CANVAS)) < 0
    np.testing.assert_allclose(stack.target, np.where(is_far, *expected), rtol=1e-5)
    inside = ~is_far if unit == '1/m' else np.zeros_like(is_far)
    np.testing.assert_array_equal(stack.valid, np.ones_like(is_far) if ends_valid else inside)


def test_a_blur_needs_only_the_levels_up_to_it():
  """Even if the largest blur of the settings needs more."""
  scene = random_scene(1)
  wide = dataclasses.replace(SETTINGS, sweep=dataclasses.replace(SETTINGS.sweep, blur_px=(0.5, 20.0)))
  photograph = jit(lambda scene, sweep: stacks.photograph(random.key(0), scene, sweep, wide))

  @jit
  def render(colour, alpha, radius):
    return defocus.render(defocus.premultiply(colour, alpha, jnp.zeros(())), radius, defocus.DISC_RADII_PX)

  for blur in (0.4, 1.2, 4.0):  # px a dioptre, over two of them
    sweep = still_sweep(np.linspace(0, 2, FRAMES), blur)
    images = np.asarray(photograph(scene, sweep).images)
    radius = blur * np.abs(np.asarray(scene.position) * 2 - np.asarray(sweep.focus_dpt)[:, None, None, None])
    light = render(scene.colour, scene.alpha, radius.astype(np.float32))
    light = np.moveaxis(np.asarray(light), 2, -1)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_allclose(images, np.clip(light, 0, 1) ** (1 / GAMMA), atol=0.03)
    assert np.abs(images - np.clip(light, 0, 1) ** (1 / GAMMA)).mean() < 1.5 / 255


def test_the_all_in_focus_image_is_of_the_same_camera(checks):
  """Vignetting, exposure, tone and sharpening: what a frame shows of a plane in its focus, where nothing is lost."""
  sensor = SensorSettings(noiseless=1.0, denoised=0.0, sharpened=1.0, jpeg_quality=None)
  settings = dataclasses.replace(SETTINGS, sensor=sensor, view_width_px=2 * WIDTH)
  sweep = still_sweep([1.0, 2.0, 3.0, 4.0, 5.0], 0.5)
  photograph = jit(lambda scene: stacks.photograph(random.key(0), scene, sweep, settings))
  stack = photograph(plain_scene(checks, 1.0))
  # Resampled without motion: the same but for rounding.
  np.testing.assert_allclose(stack.images[-1], stack.all_in_focus, atol=1.01 / 255)
  assert np.abs(np.asarray(stack.all_in_focus) - display(crop(checks))).mean() > 0.02


def test_the_lens_is_drawn_log_uniform():
  keys = random.split(random.key(1), 500)
  numbers = np.asarray(jit(jax.vmap(lambda key: Draws(key, 1).log_uniform(0.15, 1.6)))(keys), np.float64)
  assert stats.kstest(np.log(numbers / 0.15) / np.log(1.6 / 0.15), 'uniform').pvalue > 0.01
  assert Draws(keys[0], 1).log_uniform(0.0, 0.0) == 0


def test_units_of_focus_and_target():
  """The same sweep in dioptres, disparity and metres."""
  scene = plain_scene(np.full((3, *CANVAS), 0.5), np.linspace(0, 1, CANVAS[1]))
  focus = np.array([0.5, 1.0, 2.0, 3.0, 4.0])
  metres = [np.asarray(1 / photograph(scene, still_sweep(focus, 1.0)).target)]
  for unit, convert in ((1, lambda x: optics.DDFF_DISPARITY_M_PX / x), (2, lambda x: x)):
    sweep = still_sweep(focus, 1.0).replace(unit=jax.device_put(np.int32(unit)))
    metres.append(np.asarray(convert(photograph(scene, sweep).target)))
  np.testing.assert_allclose(metres[1], metres[0], rtol=1e-5)
  np.testing.assert_allclose(metres[2], metres[0], rtol=1e-5)


@pytest.mark.parametrize('seed', range(3))
def test_undoing_the_true_motion_gives_the_stack_without_motion(seed):
  """Frames aligned by `warp` with the truth are those that the same sweep renders without motion, blur and all.

  Half of the zoom is told as field of view, the other half is left to the motion.
  """
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[: CANVAS[0], : CANVAS[1]]
  waves = [np.sin(2 * np.pi * (x / a + y / b)) for a, b in ((11, 37), (-29, 9), (14, 15))]
  scene = plain_scene(0.5 + 0.3 * np.stack(waves), np.linspace(0, 1, CANVAS[1]))
  still = still_sweep([1.0, 2.0, 3.0, 4.0, 5.0], 0.5)
  zoom = np.array([1.06, 1.04, 1.02, 1.01, 1.0])
  fov = (1 + zoom) / 2
  drift = rng.uniform(-3, 3, (FRAMES, 2)) * (np.arange(FRAMES) < FRAMES - 1)[:, None]
  motion = jnp.asarray(np.concatenate([(zoom - fov)[:, None], drift], -1), jnp.float32)
  moving = photograph(scene, still.replace(fov=jnp.asarray(fov, jnp.float32), motion=motion))
  expected = photograph(scene, still)
  aligned = np.asarray(warped(moving.images, moving.fov, moving.motion))
  inside = np.asarray(coverage(moving.fov, moving.motion, HEIGHT, WIDTH)) > 0.999
  assert inside[:-1].mean() > 0.5
  error, before = (np.abs(np.asarray(a) - np.asarray(expected.images))[inside].mean() for a in (aligned, moving.images))
  assert error < 0.006
  assert error < 0.15 * before
  np.testing.assert_array_equal(moving.images[-1], expected.images[-1])
  np.testing.assert_array_equal(moving.target, expected.target)


def test_recorded_positions_by_hand():
  """32 px, a zoom of 1.1: x shows the frame at x - 16 * 0.1 * (x - 15.5) / 15.5 - 2; the edge 31 at 31 - 1.6 - 2."""
  recorded = stacks.recorded_positions(jnp.array([1.0, 1.1]), jnp.array([0.0, 2.0]), 32)
  np.testing.assert_array_equal(recorded[0], np.arange(32))
  slope = recorded[1, 1] - recorded[1, 0]
  np.testing.assert_allclose(recorded[1, 27] + slope * 0.4, 31, rtol=1e-5)


def test_cubic_weights():
  """Exact on pixels and for quadratics, weights that sum to 1."""
  positions = np.array([3.0, 4.25, 7.5, 8.9])
  matrix = np.asarray(jit(stacks.cubic_weights)(jnp.asarray(positions[:, None] - np.arange(16), jnp.float32)))
  np.testing.assert_array_equal(matrix[0], np.eye(16)[3])
  np.testing.assert_allclose(matrix.sum(-1), 1, atol=1e-6)
  np.testing.assert_allclose(matrix @ (np.arange(16) - 6.0) ** 2, (positions - 6) ** 2, atol=1e-4)


def test_levels_reach_the_blur_of_a_preset():
  """In closed form for a phone: a surface at the far end, in the frame focused at the near end."""
  phone = CAMERAS['pixel_4_xl']
  sweep = SweepSettings(cameras=('pixel_4_xl',), far_dpt=None, range_dpt=None, blur_px=None)
  settings = dataclasses.replace(SETTINGS, width_px=352, sweep=sweep, sensor=SensorSettings())
  diameter = optics.circle_of_confusion(phone.focal_length_m, phone.f_number, phone.focus_m[-1], phone.focus_m[0])
  radius = float(diameter) / 2 / phone.pixel_pitch_m * 352 / phone.sensor_width_px
  assert stacks.largest_blur_px(settings, 'disc') == pytest.approx(radius, rel=1e-5)
  beyond = dataclasses.replace(settings, scene=SceneSettings(beyond=0.1))  # by half of the range, so blurred by as much
  assert stacks.largest_blur_px(beyond, 'disc') == pytest.approx(1.5 * radius, rel=1e-5)
  views = stacks.preset_settings('ddff12', settings)
  assert views.whole_width_px == 552
  ours = SensorSettings()
  shot, read = (tuple(1 / 9 * amount for amount in pair) for pair in (ours.shot_noise, ours.read_noise))
  assert views.sensor == dataclasses.replace(IDEAL, shot_noise=shot, read_noise=read, correlated=ours.correlated)
  assert stacks.preset_settings('defocusnet', settings).sensor == IDEAL
  patterned = dataclasses.replace(settings, patterned=0.5)
  shares = [stacks.preset_settings(name, patterned).patterned for name in ('defocusnet', 'ddff12', 'dslr')]
  assert shares == [0.0, 0.5, 0.5]
  wide = dataclasses.replace(settings, lens_sigma_px=(0.15, 1.6))
  assert stacks.preset_settings('defocusnet', wide).lens_sigma_px == (0.15, 0.9)
  assert stacks.preset_settings('dslr', wide).lens_sigma_px == (0.15, 1.6)
  assert stacks.preset_settings('dslr', settings).sensor == settings.sensor
  span = optics.ddff_focus_disparities()[[0, -1]]
  assert stacks.largest_blur_px(views, 'views') == pytest.approx(span[0] - span[1], rel=1e-5)


def test_a_camera_of_one_aperture_among_others_sees_what_it_sees_alone():
  """With discs and grids of views in one program, each stack uses its own."""
  scene, still = random_scene(1), still_sweep(np.linspace(0.2, 2, FRAMES), 0.15)
  both = SweepSettings(cameras=('pixel_6', 'ddff12'), far_dpt=(0.1, 1.0))
  mixed = jit(
    lambda scene, sweep: stacks.photograph(random.key(0), scene, sweep, dataclasses.replace(SETTINGS, sweep=both))
  )
  through_disc, through_views = (mixed(scene, still.replace(views=jnp.asarray(v))) for v in (0.0, 1.0))
  alone = photograph(scene, still)  # phones only
  np.testing.assert_allclose(through_disc.images, alone.images, atol=1.01 / 255)
  assert np.abs(np.asarray(through_views.images) - alone.images).mean() > 0.01


def test_a_photograph_with_depth():
  """A slanted plane with a hole in its depth: linear in inverse depth from the first to the last focus."""
  rng = np.random.default_rng(0)
  rgb = rng.random((*CANVAS, 3)).astype(np.float32)
  inverse = np.linspace(0.5, 2.0, CANVAS[0])[:, None] + np.zeros(CANVAS)
  depth = (1 / inverse).astype(np.float32)
  depth[20:24, 30:40] = 0
  sweep = SweepSettings(cameras=('pixel_6',), aligned=1.0)
  settings = dataclasses.replace(SETTINGS, num_layers=2, sweep=sweep)
  simulate = jit(lambda key, rgb, depth: stacks.simulate_rgbd(key, rgb, depth, settings))
  stack = simulate(random.key(0), jnp.asarray(rgb), jnp.asarray(depth))
  place = (np.asarray(stack.target) - stack.focus[0]) / (stack.focus[-1] - stack.focus[0])
  np.testing.assert_allclose(place, crop((inverse - 0.5) / 1.5), atol=0.01)
  np.testing.assert_array_equal(np.asarray(stack.valid)[2:-2], crop(depth > 0)[2:-2])
  np.testing.assert_allclose(stack.all_in_focus, crop(np.moveaxis(rgb, -1, 0)).transpose(1, 2, 0), atol=0.6 / 255)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('num_frames', 1), ('height_px', 0), ('width_px', -32), ('num_surfaces', 0), ('num_layers', 0), ('margin_px', -1),
    ('lens_sigma_px', (0.5, 0.1)), ('lens_sigma_px', (0.0, 1.0)), ('lens_sigma_px', (0.5, 2.1)), ('view_width_px', 50),
    ('pattern', (0.02, 0.01)), ('patterned', 1.5), ('truth_beyond', -0.1),
  ],
)  # fmt: skip
def test_bad_settings_name_the_field(field, value):
  with pytest.raises(InputError, match=rf'simulator\.{field} is .*, expected'):
    SimulatorSettings(**{field: value})  # 96 px wide


def test_the_canvas_is_the_frame_with_its_margin():
  assert SimulatorSettings(num_surfaces=1, height_px=8, width_px=16, margin_px=4).canvas == (16, 24)
