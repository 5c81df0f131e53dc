"""The simulator against brute force: discs of points, loops over surfaces, and motion undone by `warp`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import special

from focal_jax import optics, warp
from focal_jax.errors import InputError
from focal_jax.simulate import cameras, defocus, scenes, stacks
from focal_jax.simulate.cameras import PHONES, Sweep, SweepSettings
from focal_jax.simulate.scenes import Scene
from focal_jax.simulate.stacks import SimulatorSettings

SIDE, MARGIN, FRAMES, SURFACES = 32, 16, 5, 3
CANVAS = SIDE + 2 * MARGIN
SETTINGS = SimulatorSettings(
  num_frames=FRAMES, size_px=SIDE, num_surfaces=SURFACES, margin_px=MARGIN, lens_sigma_px=(0.0, 0.0), noise=(0.0, 0.0)
)
# Compiled once each, for one shape, and fast to compile rather than to run.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
draw_sweeps = jit(jax.vmap(lambda key: cameras.draw_sweep(key, FRAMES)))
draw_scene = jit(lambda key: scenes.draw_scene(key, SURFACES, CANVAS))
photograph = jit(lambda key, scene, sweep: stacks.photograph(key, scene, sweep, SETTINGS))
render = jit(defocus.render)


@pytest.fixture(scope='module')
def sweeps():
  """512 random sweeps of FRAMES frames."""
  return jax.tree.map(np.asarray, draw_sweeps(random.split(random.key(0), 512)))


@pytest.fixture(scope='module')
def batches():
  """Batches of two from the keys 0, 0 and 1, with blur, noise, motion and everything."""
  settings = dataclasses.replace(SETTINGS, lens_sigma_px=(0.2, 0.9), noise=(0.0, 0.015))
  simulate = jit(lambda key: stacks.simulate_batch(key, 2, settings))
  return [jax.tree.map(np.asarray, simulate(random.key(seed))) for seed in (0, 0, 1)]


def sweep_of(sweeps, i):
  return jax.tree.map(lambda x: jnp.asarray(x[i]), sweeps)


def still_sweep(focus, blur_px_per_dpt):
  n = len(focus)
  return Sweep(
    focus=jnp.asarray(focus, jnp.float32),
    fov=jnp.ones(n),
    motion=jnp.zeros((n, 3)),
    blur_px_per_dpt=jnp.asarray(blur_px_per_dpt, jnp.float32),
  )


def plain_scene(colour, position):
  """A background of the given colour [3, S, S] and position; the other surfaces are transparent."""
  transparent = [0.0] * (SURFACES - 1)
  return Scene(
    colour=jnp.stack([jnp.asarray(colour, jnp.float32)] * SURFACES),
    alpha=jnp.array([1.0, *transparent])[:, None, None] * jnp.ones((CANVAS, CANVAS)),
    position=jnp.broadcast_to(jnp.asarray(position, jnp.float32), (SURFACES, CANVAS, CANVAS)),
  )


def display(linear):
  """As `photograph` encodes: [3, S, S] linear light to [S, S, 3] display values in steps of 1/255."""
  return np.round(np.moveaxis(np.asarray(linear, np.float64), 0, -1) ** (1 / 2.2) * 255) / 255


def crop(canvas):
  return np.asarray(canvas)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


# Defocus.


def test_bessel_function():
  x = np.concatenate([np.linspace(0, 60, 5001), [2.9999999, 3.0, 3.0000001]])
  np.testing.assert_allclose(jit(defocus.bessel_j1)(jnp.asarray(x, jnp.float32)), special.j1(np.float32(x)), atol=1e-6)


def test_disc_transfer_is_the_mean_phase_over_the_disc():
  """By symmetry along x, where a disc's chords weigh 2 sqrt(R^2 - x^2): Gauss-Chebyshev quadrature, second kind."""
  side = 16
  radii = np.array([0.0, 0.5, 1.5, 4.5, 9.0])
  got = jit(defocus.disc_transfer, static_argnums=1)(jnp.asarray(radii, jnp.float32), side)
  angle = np.arange(1, 80) * np.pi / 80
  chord = np.sin(angle) ** 2 / 40
  frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing='ij'))
  phase = 2 * np.pi * np.multiply.outer(np.multiply.outer(radii, frequency), np.cos(angle))
  np.testing.assert_allclose(got, np.cos(phase) @ chord, atol=2e-6)
  np.testing.assert_array_equal(got[0], 1)  # radius 0 changes nothing
  np.testing.assert_array_equal(got[:, 0, 0], 1)  # and no radius changes the mean


LENS_PX = 1.6  # so soft that sampling loses nothing
NODES = (0.0, 1.0, 2.0, 4.5, 9.0)  # one radius a frame; all among RADII_PX


@pytest.fixture(scope='module')
def impulse_response():
  """[N, S, S]: a white point on black, blurred by NODES and LENS_PX."""
  colour = np.zeros((2, 3, CANVAS, CANVAS), np.float32)
  colour[1, :, CANVAS // 2, CANVAS // 2] = 1
  radius = jnp.broadcast_to(jnp.array(NODES)[:, None, None, None], (len(NODES), 2, CANVAS, CANVAS))
  frames = render(jnp.asarray(colour), jnp.ones((2, CANVAS, CANVAS)), radius, jnp.asarray(LENS_PX))
  return np.asarray(frames[:, 0], np.float64)


def test_a_point_becomes_a_disc(impulse_response):
  """Against a disc of many points, each a Gaussian."""
  axis = np.arange(CANVAS) - CANVAS // 2
  for radius, got in zip(NODES, impulse_response, strict=True):
    i = np.arange(5000)
    r, angle = radius * np.sqrt((i + 0.5) / len(i)), i * np.pi * (3 - np.sqrt(5))  # a spiral by the golden angle
    x, y = r * np.cos(angle), r * np.sin(angle)
    along_x, along_y = (np.exp(-((axis[:, None] - p) ** 2) / (2 * LENS_PX**2)) for p in (x, y))
    expected = along_y @ along_x.T / (len(x) * 2 * np.pi * LENS_PX**2)
    np.testing.assert_allclose(got, expected, atol=3e-3 * expected.max(), err_msg=str(radius))


def test_energy_and_second_moment_of_the_disc(impulse_response):
  """A disc has variance R^2 / 4 along each axis; the lens adds its own."""
  axis = np.arange(CANVAS) - CANVAS // 2
  np.testing.assert_allclose(impulse_response.sum((1, 2)), 1, rtol=1e-4)
  for along in (1, 2):
    moment = (impulse_response.sum(3 - along) * axis**2).sum(-1)
    np.testing.assert_allclose(moment, np.square(NODES) / 4 + LENS_PX**2, rtol=2e-3)


def test_mixture_weights():
  radius = jnp.asarray(np.random.default_rng(0).uniform(0, 12, (50, 3)), jnp.float32)
  weights = np.stack(jit(defocus.mixture_weights)(radius))
  np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
  assert weights.min() >= 0
  assert np.all((weights > 0).sum(0) <= 2)
  # They mix the radii to the radius asked for.
  mixed = np.tensordot(defocus.RADII_PX, weights, 1)
  np.testing.assert_allclose(mixed, np.minimum(radius, defocus.RADII_PX[-1]), atol=1e-5)
  at_nodes = np.stack(defocus.mixture_weights(jnp.array(defocus.RADII_PX)))
  np.testing.assert_array_equal(at_nodes, np.eye(len(defocus.RADII_PX)))


def foreground(radii_front, radii_back, sigma=0.0, opacity=1):
  """A red square before a background of random green and blue: frames [N, 3, S, S], the square and the background."""
  rng = np.random.default_rng(1)
  colour = np.zeros((2, 3, CANVAS, CANVAS), np.float32)
  colour[0, 1:] = rng.random((2, CANVAS, CANVAS))
  colour[1, 0] = 0.8
  alpha = np.ones((2, CANVAS, CANVAS), np.float32)
  alpha[1] = 0
  alpha[1, 20:40, 24:50] = opacity
  radius = np.stack(np.broadcast_arrays(np.array(radii_back), np.array(radii_front)), 1)[..., None, None]
  radius = jnp.asarray(np.broadcast_to(radius, (len(radius), 2, CANVAS, CANVAS)), jnp.float32)
  frames = render(jnp.asarray(colour), jnp.asarray(alpha), radius, jnp.asarray(sigma))
  return np.asarray(frames), alpha[1] > 0, colour[0]


def test_sharp_foreground_neither_leaks_nor_lets_through():
  frames, square, background = foreground([0.0] * 5, NODES)
  assert np.abs(frames[:, 0, ~square]).max() < 1e-5
  np.testing.assert_allclose(frames[:, 0, square], 0.8, atol=1e-5)
  assert np.abs(frames[:, 1:, square]).max() < 1e-5
  np.testing.assert_allclose(frames[0][:, ~square], background[:, ~square], atol=1e-5)
  # The background is complete behind the square: its blur does not know of it.
  alone, _, _ = foreground([0.0] * 5, NODES, opacity=0)
  np.testing.assert_allclose(frames[:, 1:, ~square], alone[:, 1:, ~square], atol=1e-5)
  assert np.all(np.diff(alone[:, 1:].std((1, 2, 3))) < -0.01)  # and it is blurred


def test_blurred_foreground_lets_the_sharp_background_through():
  frames, _, background = foreground(NODES, [0.0] * 5)
  for frame in frames[1:]:
    veil = frame[0] / 0.8  # alpha of the foreground, since nothing else is red
    assert veil.min() >= 0
    assert veil.max() < 1.1  # a sharp edge, band-limited, overshoots
    soft = (veil > 0.05) & (veil < 0.95)
    assert soft.sum() > 50
    np.testing.assert_allclose(frame[1:, soft], (1 - veil[soft]) * background[1:, soft], atol=1e-5)
  # Half of an edge's light falls on either side.
  edge = frames[3, 0, 30, 23:25].mean()
  np.testing.assert_allclose(edge, 0.4, atol=0.01)


def test_opaque_surfaces_stay_within_zero_and_one():
  """Whatever is blurred: surfaces of full alpha hide what is behind, and blur cannot leave the range of a colour."""
  frames, _, _ = foreground([4.5, 2.0, 1.0, 9.0, 6.5], NODES, sigma=0.9)
  assert frames.min() >= 0
  assert frames.max() <= 1
  colour = jnp.stack([jnp.full((3, CANVAS, CANVAS), c) for c in (0.3, 1.0)])
  radius = jnp.broadcast_to(jnp.array(NODES)[:, None, None, None], (len(NODES), 2, CANVAS, CANVAS))
  frames = render(colour, jnp.ones((2, CANVAS, CANVAS)), radius, jnp.asarray(0.0))
  np.testing.assert_allclose(frames, 1, atol=1e-5)


# Cameras.


def test_phones_are_the_measured_ones():
  phones = {phone.name: phone for phone in PHONES}
  assert list(phones) == ['Pixel 4 XL', 'Pixel 6', 'Galaxy S8+', 'Galaxy Note10']
  assert [p.sensor_width_px for p in PHONES] == [4032, 4080, 4032, 4032]
  assert [p.focal_length_m for p in PHONES] == [0.0044, 0.0068, 0.0043, 0.0048]
  assert [p.f_number for p in PHONES] == [1.7, 1.9, 1.5, 1.7]
  assert [p.alpha_slope_m for p in PHONES] == [-0.00266, -0.00429249, -0.00203839, -0.00402384]
  assert [p.alpha_intercept for p in PHONES] == [0.019155, 0.00330253, 0.0166955, 0.0247385]
  assert phones['Pixel 4 XL'].gamma_px == (-9.9504701, 8.04556863)
  assert phones['Pixel 6'].beta_px == (0.470281, 6.2634662)
  assert phones['Galaxy S8+'].beta_px == (4.430173117, 4.60067699)
  assert phones['Galaxy Note10'].gamma_px == (-0.9456601, 0.153538997)
  assert cameras.PIXEL_PITCH_M == 1.4e-6


def test_sweeps_go_from_far_to_near_and_the_last_frame_is_narrowest(sweeps):
  settings = SweepSettings()
  extent = sweeps.focus[:, -1] - sweeps.focus[:, 0]
  for values, (low, high) in ((sweeps.focus[:, 0], settings.far_dpt), (extent, settings.range_dpt)):
    assert low - 1e-5 <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high + 1e-5
  position = (sweeps.focus - sweeps.focus[:, :1]) / extent[:, None]
  # Uneven, but by no more than 0.3 of half a step: frames cannot change places.
  jitter = np.abs(position - np.linspace(0, 1, FRAMES)) * (FRAMES - 1)
  assert 0.1 < jitter.max() <= 0.15 + 1e-4
  assert np.all(np.diff(sweeps.focus) > 0)
  assert np.all(np.diff(sweeps.fov) <= 0)
  np.testing.assert_allclose(sweeps.fov[:, -1], 1, atol=1e-6)


def kinds(sweeps):
  """Which sweeps do not move, which tell their field of view, and which move and do not tell."""
  still = np.all(sweeps.motion == 0, axis=(1, 2))
  told = sweeps.fov[:, 0] > 1 + 1e-6
  return still, told, ~still & ~told


def test_motion_is_relative_to_the_last_frame_and_limited(sweeps):
  zoom = sweeps.fov + sweeps.motion[..., 0]
  low, high = SweepSettings().zoom
  assert low - 1e-5 < zoom.min()
  assert zoom.max() < high + 1e-5
  np.testing.assert_allclose(zoom[:, -1], 1, atol=1e-6)
  np.testing.assert_allclose(sweeps.motion[:, -1], 0, atol=1e-6)
  still, told, untold = kinds(sweeps)
  for kind, share in ((still, 0.25), (told, 0.5), (untold, 0.25)):
    np.testing.assert_allclose(kind.mean(), share, atol=0.06)
  assert not np.any(still & told)
  np.testing.assert_array_equal(sweeps.fov[still | untold], 1)
  assert np.abs(sweeps.motion[~still, :-1, 1:]).max() > 2  # px of drift


def test_blur_between_the_ends_is_the_one_drawn(sweeps):
  """Log-uniform: the far end, in the frame focused at the near end."""
  blur = np.log(sweeps.blur_px_per_dpt * (sweeps.focus[:, -1] - sweeps.focus[:, 0]))
  low, high = np.log(SweepSettings().blur_px)
  assert low - 1e-3 < blur.min() < low + 0.1
  assert high - 0.1 < blur.max() < high + 1e-3
  np.testing.assert_allclose(blur.mean(), (low + high) / 2, atol=0.1)


def phone_of(sweeps, i):
  """The phone whose thin lens has the field of view that sweep i tells."""
  expected = [optics.relative_field_of_view(p.focal_length_m, 1 / sweeps.focus[i]) for p in PHONES]
  error = [np.abs(sweeps.fov[i] - e).max() for e in expected]
  assert min(error) < 2e-6
  return PHONES[np.argmin(error)]


def test_field_of_view_and_breathing_are_those_of_one_phone(sweeps):
  """fov is the thin lens's; the zoom beyond it is a phone's zoom error times a factor between 0 and 3."""
  _, told, _ = kinds(sweeps)
  seen = set()
  for i in np.flatnonzero(told):
    phone = phone_of(sweeps, i)
    seen.add(phone.name)
    focus, fov, alpha = (x[i].astype(np.float64) for x in (sweeps.focus, sweeps.fov, sweeps.motion[..., 0]))
    zoom = fov + alpha
    low, high = SweepSettings().zoom
    if zoom.min() > low + 1e-4 and zoom.max() < high - 1e-4:
      # zoom = (fov + f a) / (1 + f a_last), solved for the factor f of the first frame, must serve the others too.
      error = phone.alpha_slope_m * focus + phone.alpha_intercept
      factor = (zoom[0] - fov[0]) / (error[0] - zoom[0] * error[-1])
      assert -0.01 < factor < 3.01
      np.testing.assert_allclose(zoom, (fov + factor * error) / (1 + factor * error[-1]), atol=2e-5)
  assert seen == {phone.name for phone in PHONES}


def test_drift_is_the_phones_at_the_scale_of_the_image(sweeps):
  """The blur tells how much smaller than the sensor the image is: variance 2 (sd scale)^2, and 2 shake^2 on average."""
  _, told, _ = kinds(sweeps)
  shake = SweepSettings().shake_px[1] ** 2 / 3
  ratios = []
  for i in np.flatnonzero(told):
    phone = phone_of(sweeps, i)
    full = phone.focal_length_m**2 / phone.f_number / 2 / cameras.PIXEL_PITCH_M  # px of radius per dioptre, f << d
    scale = sweeps.blur_px_per_dpt[i] / full
    for drift, (_, sd) in zip(sweeps.motion[i, :-1, 1:].T, (phone.beta_px, phone.gamma_px), strict=True):
      if (sd * scale) ** 2 > shake:
        ratios.append(np.mean(drift**2) / (2 * (sd * scale) ** 2 + 2 * shake))
  assert len(ratios) > 100
  np.testing.assert_allclose(np.mean(ratios), 1, atol=0.2)


# Stacks.


def test_the_key_decides(batches):
  first, again, other = batches
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  for name in ('images', 'focus', 'target'):
    assert not np.array_equal(getattr(first, name), getattr(other, name)), name
    assert not np.array_equal(getattr(first, name)[0], getattr(first, name)[1]), name


def test_batches_are_as_documented(batches):
  for batch in batches[1:]:
    assert batch.images.shape == (2, FRAMES, SIDE, SIDE, 3)
    assert batch.focus.shape == batch.fov.shape == (2, FRAMES)
    assert batch.target.shape == batch.valid.shape == (2, SIDE, SIDE)
    assert batch.motion.shape == (2, FRAMES, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.float32)}
    steps = batch.images * 255
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert batch.images.std() > 0.05
    assert np.all(np.diff(batch.focus) > 0)
    assert np.all(batch.target >= batch.focus[:, :1, None])
    assert np.all(batch.target <= batch.focus[:, -1:, None] + 1e-5)


@pytest.fixture(scope='module')
def checks():
  """Random colour 0 .. 1 on the canvas, as sharp as can be."""
  return np.random.default_rng(2).random((3, CANVAS, CANVAS)).astype(np.float32)


def test_a_frame_is_sharp_exactly_where_it_is_focused(checks):
  """A plane at the third of five distances; then one half of it there and the other half at the last."""
  focus = [1.0, 2.0, 3.0, 4.0, 5.0]
  sharp = display(crop(checks))
  stack = photograph(random.key(0), plain_scene(checks, 0.5), still_sweep(focus, 1.5))
  np.testing.assert_allclose(stack.images[2], sharp, atol=1.01 / 255)  # one step, where rounding is a tie
  assert np.mean(np.abs(stack.images[2] - sharp) > 1e-6) < 1e-3
  error = np.abs(np.asarray(stack.images) - sharp).mean((1, 2, 3))
  assert error[2] < 1e-3
  assert np.all(error[[0, 1, 3, 4]] > 0.05)
  np.testing.assert_allclose(error[[0, 1]], error[[4, 3]], rtol=1e-3)  # the same on both sides in dioptres
  np.testing.assert_array_equal(stack.target, 3)

  halves = np.where(np.arange(CANVAS) < CANVAS // 2, 0.5, 1.0)
  stack = photograph(random.key(0), plain_scene(checks, halves), still_sweep(focus, 1.5))
  error = np.abs(np.asarray(stack.images) - sharp).mean((1, 3))  # [N, W]
  assert error[2, : SIDE // 2].max() < 2e-3
  assert error[4, SIDE // 2 :].max() < 2e-3
  assert error[2, SIDE // 2 :].min() > 0.05
  assert error[4, : SIDE // 2].min() > 0.05


def test_blur_grows_with_the_zoom_of_a_frame():
  """A wider frame is enlarged to the canvas, and its blur with it; recording at `scale` makes both small again."""
  y, x = np.mgrid[:CANVAS, :CANVAS] - CANVAS / 2
  spot = np.broadcast_to(np.exp(-(x**2 + y**2) / 2), (3, CANVAS, CANVAS))
  zoom, scale = np.array([1, 1.1]), np.array([1, 1 - 0.1 * 16 / 15.5])
  motion = jnp.zeros((FRAMES, 3)).at[:2, 0].set(zoom - 1)
  sweep = still_sweep([1.0, 1.0, 2.0, 3.0, 4.0], 2.0).replace(motion=motion)
  images = photograph(random.key(0), plain_scene(spot, 1.0), sweep).images
  light = np.asarray(images[:2, ..., 0], np.float64) ** 2.2
  light /= light.sum((1, 2), keepdims=True)
  axis = np.arange(SIDE) - (SIDE - 1) / 2
  along_x = light.sum(1)
  variance = along_x @ axis**2 - (along_x @ axis) ** 2
  # The spot has variance 1; the disc of 6 px is a mixture of those of 4.5 and 6.5 px, that of 6.6 px of 6.5 and 9 px.
  blur = np.interp(6 * zoom, defocus.RADII_PX, np.square(defocus.RADII_PX)) / 4
  np.testing.assert_allclose(variance, (1 + blur) * scale**2, rtol=0.03)


@pytest.fixture(scope='module')
def drawn():
  """Eight random scenes."""
  return [draw_scene(random.key(seed)) for seed in range(8)]


def test_scenes(drawn):
  for scene in drawn:
    assert scene.colour.shape == (SURFACES, 3, CANVAS, CANVAS)
    for values in (scene.colour, scene.alpha):
      assert float(values.min()) >= 0
      assert float(values.max()) <= 1
    np.testing.assert_array_equal(scene.alpha[0], 1)
    assert np.all(np.diff(np.asarray(scene.position).mean((1, 2))) >= -1e-5)  # far to near
    assert np.isfinite(scene.position).all()
  covered = np.mean([np.asarray(scene.alpha[1:]).max(0) > 0.5 for scene in drawn])
  assert 0.05 < covered < 0.95


def test_target_is_the_nearest_surface(drawn, sweeps):
  """A loop from near to far over surfaces and pixels; what lies outside the sweep is not valid."""
  occluded = 0
  for i, scene in enumerate(drawn):
    sweep = sweep_of(sweeps, i)
    stack = photograph(
      random.key(i),
      scene,
      sweep,
    )
    alpha, position = crop(scene.alpha), crop(scene.position)
    first, last = (float(sweep.focus[n]) for n in (0, -1))
    target, valid = np.empty((SIDE, SIDE)), np.empty((SIDE, SIDE))
    for y, x in np.ndindex(SIDE, SIDE):
      surface = next(k for k in reversed(range(SURFACES)) if alpha[k, y, x] > 0.5)
      occluded += surface > 0
      place = float(position[surface, y, x])
      valid[y, x] = 0 <= place <= 1
      target[y, x] = first + min(max(place, 0), 1) * (last - first)
    np.testing.assert_allclose(stack.target, target, atol=1e-5)
    np.testing.assert_array_equal(stack.valid, valid)
  assert occluded > 100


def test_what_lies_beyond_the_sweep_is_not_valid(checks):
  """A slanted plane from before the first to beyond the last focus distance."""
  position = np.linspace(-1.0, 2.0, CANVAS)  # along x
  stack = photograph(random.key(0), plain_scene(checks, position), still_sweep([1.0, 1.5, 2.0, 2.5, 3.0], 1.0))
  place = crop(np.broadcast_to(position, (CANVAS, CANVAS)))
  assert 0 < np.mean(place < 0) < 0.5
  assert 0 < np.mean(place > 1) < 0.5
  np.testing.assert_array_equal(stack.valid, (place >= 0) & (place <= 1))
  np.testing.assert_allclose(stack.target, 1 + 2 * np.clip(place, 0, 1), atol=1e-5)


def test_undoing_the_true_motion_gives_the_reference(sweeps):
  """Frames without blur, aligned by `warp` with the truth, are the last frame; without it they are not.

  Sweeps with and without metadata, drifts of whole images' worth left out.
  """
  y, x = np.mgrid[:CANVAS, :CANVAS]
  waves = [np.sin(2 * np.pi * (x / a + y / b)) for a, b in ((11, 37), (-29, 9), (14, 15))]
  scene = plain_scene(0.5 + 0.3 * np.stack(waves), 0.5)
  align = jit(lambda s: (warp.warp(s.images, s.fov, s.motion), warp.coverage(s.fov, s.motion, SIDE, SIDE)))
  _, told, untold = kinds(sweeps)
  small = np.abs(sweeps.motion[..., 1:]).max((1, 2)) < 6  # stays within the margin
  moves = np.abs(sweeps.motion[:, :-1, 1:]).mean((1, 2)) > 0.7
  chosen = [np.flatnonzero(kind & small & moves)[:4] for kind in (told, untold)]
  assert [len(c) for c in chosen] == [4, 4]
  for i in np.concatenate(chosen):
    sweep = sweep_of(sweeps, i).replace(blur_px_per_dpt=jnp.asarray(1e-4))
    stack = photograph(random.key(0), scene, sweep)
    aligned, share = (np.asarray(a) for a in align(stack))
    reference = np.asarray(stack.images[-1])
    inside = share > 0.999
    assert inside[:-1].mean() > 0.5
    error = np.abs(aligned - reference)[:-1][inside[:-1]]
    before = np.abs(np.asarray(stack.images) - reference)[:-1][inside[:-1]]
    assert error.mean() < 0.01, (i, error.mean())
    assert error.mean() < 0.2 * before.mean(), (i, error.mean(), before.mean())


def test_recorded_positions_by_hand():
  """32 px, a zoom of 1.1: x shows the frame at x - 16 * 0.1 * (x - 15.5) / 15.5 - 2; the edge 31 at 31 - 1.6 - 2."""
  recorded = stacks.recorded_positions(jnp.array([1.0, 1.1]), jnp.array([0.0, 2.0]), 32)
  np.testing.assert_array_equal(recorded[0], np.arange(32))
  slope = recorded[1, 1] - recorded[1, 0]
  np.testing.assert_allclose(recorded[1, 27] + slope * 0.4, 31, rtol=1e-5)


def test_cubic_interpolation():
  """Exact on pixels and for quadratics, weights that sum to 1."""
  positions = jnp.array([[3.0, 4.25, 7.5, 8.9]])
  matrix = np.asarray(jit(stacks.cubic_matrix, static_argnums=1)(positions, 16))
  np.testing.assert_array_equal(matrix[0, 0], np.eye(16)[3])
  np.testing.assert_allclose(matrix.sum(-1), 1, atol=1e-6)
  x = np.arange(16)
  np.testing.assert_allclose(matrix @ (x - 6.0) ** 2, (np.asarray(positions) - 6) ** 2, atol=1e-4)


# Settings.


@pytest.mark.parametrize(
  ('field', 'value'),
  [('num_frames', 1), ('num_frames', 0), ('size_px', 0), ('size_px', 48), ('size_px', -32), ('num_surfaces', 0)],
)
def test_bad_settings_name_the_field(field, value):
  with pytest.raises(InputError, match=f'simulator.{field} is {value}, expected'):
    SimulatorSettings(**{field: value})


def test_a_single_surface_is_enough():
  assert SimulatorSettings(num_surfaces=1).num_surfaces == 1
