"""Simulated focal stacks with ground truth: scenes photographed in the focus sweep of a random camera.

Plain JAX. The key determines everything, so any stack can be drawn again.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key, PRNGKeyArray

from focal_jax import optics
from focal_jax.errors import InputError
from focal_jax.simulate import cameras, defocus
from focal_jax.simulate.cameras import SweepSettings, as_camera
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.focus_sweep import Sweep, draw_sweep, to_unit
from focal_jax.simulate.layers import scene_from_rgbd
from focal_jax.simulate.pattern import with_pattern
from focal_jax.simulate.scenes import FARTHEST_BACKGROUND, Scene, SceneSettings, draw_scene, top_position
from focal_jax.simulate.sensor import IDEAL, SensorSettings, record, record_without_loss
from focal_jax.simulate.textures import Textures
from focal_jax.stack import FocalStack
from focal_jax.warp import cubic_weights, displacement_line

_LENS_SIGMA_OF_COMPUTED_PX = 0.9  # maximum lens blur of frames that are rendered or computed from light fields
_VIEW_LEVELS = 6  # distances between views at which surfaces are blurred; pixels interpolate between them


@dataclasses.dataclass(frozen=True)
class SimulatorSettings:
  """The simulator. Pairs are the ends of a uniform distribution unless stated otherwise.

  Raises:
    InputError: naming the field, for an invalid value.
  """

  num_frames: int = 10  # frames per stack
  height_px: int = 96  # height of the frames
  width_px: int = 96  # width of the frames
  view_width_px: int = 0  # width of the camera's full image, of which frames are the centre; 0: the frames' width
  margin_px: int = 16  # margin rendered around the frames, for content moved in by blur, zoom and drift
  num_surfaces: int = 10  # number of surfaces of procedural scenes
  num_layers: int = 4  # number of layers that RGB-D photographs are cut into
  lens_sigma_px: tuple[float, float] = (0.15, 1.6)  # standard deviation of the blur of lens and pixel, log-uniform
  # Standard deviation of a fixed pattern, relative to the light; log-uniform.
  pattern: tuple[float, float] = (5e-4, 0.02)
  patterned: float = 0.0  # share of stacks with a fixed pattern
  ends_valid: bool = False  # whether pixels beyond the sweep are valid, with the nearer end of the sweep as depth
  # How far true depth extends beyond the ends of the sweep before it is clipped, as a share of the sweep's range. Not
  # for cameras with depth in metres, which is unbounded beyond the far end.
  truth_beyond: float = 0.0
  scene: SceneSettings = SceneSettings()  # surfaces
  sweep: SweepSettings = SweepSettings()  # camera, focus, blur and motion
  sensor: SensorSettings = SensorSettings()  # noise, tone and JPEG

  def __post_init__(self):
    lowest = {'num_frames': 2, 'height_px': 8, 'width_px': 8, 'margin_px': 0, 'num_surfaces': 1, 'num_layers': 1}
    for field, low in lowest.items():
      if getattr(self, field) < low:
        raise InputError(f'simulator.{field} is {getattr(self, field)}, expected at least {low}')
    if self.view_width_px and self.view_width_px < self.width_px:
      raise InputError(f'simulator.view_width_px is {self.view_width_px}, expected 0 or at least {self.width_px}')
    if not (len(self.pattern) == 2 and 0 < self.pattern[0] <= self.pattern[1] < 1):
      raise InputError(f'simulator.pattern is {self.pattern!r}, expected two numbers between 0 and 1, rising')
    for field in ('patterned', 'truth_beyond'):
      if not 0 <= getattr(self, field) <= 1:
        raise InputError(f'simulator.{field} is {getattr(self, field)}, expected a number from 0 to 1')
    pair = self.lens_sigma_px
    if pair != (0, 0) and not (isinstance(pair, tuple) and len(pair) == 2 and 0 < pair[0] <= pair[1] <= 2):
      raise InputError(
        f'simulator.lens_sigma_px is {pair!r}, expected two numbers above 0 and up to 2, the lower one first, or (0, 0)'
      )

  @property
  def whole_width_px(self) -> int:
    """Width of the camera's full image, px."""
    return self.view_width_px or self.width_px

  @property
  def canvas(self) -> tuple[int, int]:
    """Height and width of the frames with their margin, px."""
    return self.height_px + 2 * self.margin_px, self.width_px + 2 * self.margin_px


def simulate_batch(keys: Key[Array, 'B'], settings: SimulatorSettings, textures: Textures | None = None) -> FocalStack:
  """A batch of stacks of procedural scenes, one per key. See `simulate`."""
  return map_stacks(lambda key: simulate(key, settings, textures), keys)


def map_stacks(function: Callable[[Any], FocalStack], inputs: Any) -> FocalStack:
  """Applies `function` to each of a batch of inputs: one after the other on a CPU, all at once elsewhere. Chosen at
  lowering.

  All at once is no faster on a CPU, needs memory for all of them, and computes both branches of every `cond`. On a GPU
  it is eight times as fast: 1,450 against 187 stacks [10, 96, 96, 3] per second of `configs/shipped.py:depth` on an
  H200.
  """
  return lax.platform_dependent(inputs, cpu=partial(lax.map, function), default=jax.vmap(function))


def simulate(key: PRNGKeyArray, settings: SimulatorSettings, textures: Textures | None = None) -> FocalStack:
  """One random stack of a random procedural scene, with full ground truth. See `photograph`.

  Args:
    key: determines the stack.
    settings: the simulator's settings.
    textures: photographs used as textures of some surfaces; geometry, sweep and sensor do not depend on them.
  """
  scene_key, sweep_key, camera_key = random.split(key, 3)
  scene = draw_scene(scene_key, settings.num_surfaces, *settings.canvas, settings.scene, textures)
  sweep = draw_sweep(sweep_key, settings.num_frames, settings.whole_width_px, settings.sweep)
  return photograph(camera_key, scene, sweep, settings)


def simulate_rgbd(
  key: PRNGKeyArray,
  rgb: Float[Array, 'H W 3'],
  depth_m: Float[Array, 'H W'],
  settings: SimulatorSettings,
) -> FocalStack:
  """One random stack of an RGB-D photograph, with its depth rescaled to fill the sweep's range in inverse depth.

  Args:
    key: determines the stack.
    rgb: display values 0 .. 1, at the size of `settings.canvas`.
    depth_m: 0 or not finite where unknown.
    settings: the simulator's settings.
  """
  sweep_key, camera_key = random.split(key)
  sweep = draw_sweep(sweep_key, settings.num_frames, settings.whole_width_px, settings.sweep)
  scene = scene_from_rgbd(rgb, depth_m, depth_m > 0, settings.num_layers)
  return photograph(camera_key, scene, sweep, settings)


def photograph(key: PRNGKeyArray, scene: Scene, sweep: Sweep, settings: SimulatorSettings) -> FocalStack:
  """The stack recorded by a sweep of a scene, differentiable with respect to both.

  Args:
    key: determines the sensor's random parameters and noise.
    scene: on a canvas of size `settings.canvas`.
    sweep: the focus sweep.
    settings: the simulator's settings.

  Returns:
    Images float 0 .. 1 in steps of 1/255; focus and target in the camera's unit (`cameras.UNITS`). Target, valid mask
      and all-in-focus image belong to the last frame; motion is the true motion, which `warp` undoes. The all-in-focus
      image has the frames' exposure, tone and sharpening, but no noise and no loss by denoising or JPEG.
  """
  lens_key, sensor_key = random.split(key)
  height, width, margin = settings.height_px, settings.width_px, settings.margin_px
  first, extent = sweep.focus_dpt[0], sweep.focus_dpt[-1] - sweep.focus_dpt[0]
  zoom = sweep.fov + sweep.motion[:, 0]
  # The canvas has the last frame's scale. At that scale a thin lens blurs all frames by the same amount per dioptre: a
  # shorter image distance makes the circle of confusion smaller, but the field of view wider by the same factor.
  defocus_dpt = jnp.abs(scene.position * extent + first - sweep.focus_dpt[:, None, None, None])
  radius = sweep.blur_px_per_dpt * defocus_dpt
  lens_sigma = Draws(lens_key, 1).log_uniform(*settings.lens_sigma_px)
  surfaces = defocus.premultiply(scene.colour, scene.alpha, lens_sigma)
  light = _defocus(surfaces, radius, sweep, settings)

  light = _move(
    light, *(margin + recorded_positions(zoom, sweep.motion[:, i], n) for i, n in ((2, height), (1, width)))
  )
  if settings.patterned:
    steps = _view_steps(settings) if 'views' in _kernels(settings) else None
    light = with_pattern(random.fold_in(sensor_key, 1), light, sweep, settings.pattern, settings.patterned, steps)
  field = width / settings.whole_width_px
  images = record(sensor_key, light, sweep.exposure, sweep.white_balance, settings.sensor, field)

  def inner(image):
    return image[margin : margin + height, margin : margin + width]

  sharp = inner(defocus.compose(surfaces).swapaxes(1, 2))
  seen = inner(top_position(scene))
  valid = inner(scene.known)
  reach = jnp.where(sweep.unit == cameras.UNITS.index('m'), 0.0, settings.truth_beyond)
  if not settings.ends_valid:  # beyond the sweep nothing is sharp, so depth is not a mean of the focus distances
    valid *= (seen >= -reach) & (seen <= 1.0 + reach)
  return FocalStack(
    images=images,
    focus=sweep.focus,
    fov=sweep.fov,
    target=to_unit(jnp.clip(seen, -reach, 1.0 + reach) * extent + first, sweep.unit),
    valid=valid,
    motion=sweep.motion,
    all_in_focus=record_without_loss(sensor_key, sharp, settings.sensor, field),
  )


def _defocus(
  surfaces: Float[Array, 'K H 4 W'], radius: Float[Array, 'N K H W'], sweep: Sweep, settings: SimulatorSettings
) -> Float[Array, 'N H 3 W']:
  """Blurs by a disc or a grid of views, depending on the camera; only kernels that the settings use are compiled."""
  kernels = _kernels(settings)
  through_disc = partial(_through_disc, largest_px=largest_blur_px(settings, 'disc'))

  def through_views(surfaces, radius):
    return defocus.render(surfaces, radius, _view_steps(settings), through_views=True)

  if kernels == {'disc'}:
    return through_disc(surfaces, radius)
  if kernels == {'views'}:
    return through_views(surfaces, radius)
  return lax.cond(sweep.views > 0, through_views, through_disc, surfaces, radius)


def _through_disc(
  surfaces: Float[Array, 'K H 4 W'], radius: Float[Array, 'N K H W'], largest_px: float
) -> Float[Array, 'N H 3 W']:
  radii = defocus.disc_radii(largest_px)
  # Run time is proportional to the number of radii, and most stacks need only a few.
  counts = sorted({min(count, len(radii)) for count in (4, 7, len(radii))})

  def with_needed(surfaces, radius):
    needed = jnp.max(radius)
    smallest = sum(jnp.where(needed > radii[count - 1], 1, 0) for count in counts[:-1])
    return lax.switch(smallest, [partial(defocus.render, radii_px=radii[:n]) for n in counts], surfaces, radius)

  # For stacks simulated all at once (`map_stacks`) a switch computes all of its branches: for four of [10, 224, 224, 3]
  # XLA estimates 89 instead of 35 Mcycles, and 3.8 instead of 1.3 GiB (v5e, level O0, compiled, not run).
  with_all = partial(defocus.render, radii_px=radii)
  return lax.platform_dependent(surfaces, radius, cpu=with_needed, default=with_all)


def _kernels(settings: SimulatorSettings) -> set[str]:
  return {as_camera(camera).kernel for camera in settings.sweep.cameras}


def _view_steps(settings: SimulatorSettings) -> tuple[float, ...]:
  return tuple(np.linspace(0, largest_blur_px(settings, 'views'), _VIEW_LEVELS).tolist())


def largest_blur_px(settings: SimulatorSettings, kernel: str) -> float:
  """The largest blur radius of any camera with this kernel, px: focused at one end of the sweep, for a surface at the
  other end or a background beyond it.
  """
  sweep, largest = settings.sweep, 0.0
  for camera in map(as_camera, sweep.cameras):
    if camera.kernel != kernel:
      continue
    if sweep.blur_px is not None:
      radius = sweep.blur_px[1]
    else:
      usual = camera.sweep_dpt(2)
      far = usual[0] if sweep.far_dpt is None else sweep.far_dpt[1]
      extent = usual[-1] - usual[0] if sweep.range_dpt is None else sweep.range_dpt[1]
      nearest_m = math.inf if camera.aligned else 1 / (far + extent)
      # Called during tracing, but determines the number of blur levels, so it must be a Python number.
      with jax.ensure_compile_time_eval():
        diameter_m = float(extent * optics.blur_per_dioptre(camera.focal_length_m, camera.f_number, nearest_m))
      scale = settings.whole_width_px / camera.sensor_width_px
      radius = diameter_m / 2 / camera.pixel_pitch_m * scale
    if settings.scene.beyond or settings.scene.anywhere:
      radius *= 1.0 - FARTHEST_BACKGROUND
    # A diameter is two radii of a disc, or eight distances between views.
    largest = max(largest, radius * (2 / (defocus.VIEWS - 1) if kernel == 'views' else 1.0))
  return largest


def recorded_positions(zoom: Float[Array, ' N'], shift_px: Float[Array, ' N'], size: int) -> Float[Array, 'N size']:
  """Position, in px of the last frame, of the pixels of every frame: the inverse of the motion that `warp` applies.

  Aligned x shows the frame at x - dx(x), where dx is a straight line (`displacement_line`); this is solved for x.
  """
  slope, intercept = displacement_line(zoom - 1.0, shift_px, size)
  return (jnp.arange(size) + intercept[:, None]) / (1.0 - slope)[:, None]


def _move(
  frames: Float[Array, 'N H C W'], rows: Float[Array, 'N h'], columns: Float[Array, 'N w']
) -> Float[Array, 'N h w C']:
  """Each frame sampled at its rows and columns.

  Instead of `warp.resample`, for speed. Rows use a matrix product, because XLA stores its input, and would otherwise
  render a pixel again for each of the 16 output pixels interpolated from it. Columns gather four pixels, which is
  faster than a second product. Cubic, because a linear kernel would blur the frames that move more than the reference.
  """
  height, channels, width = frames.shape[1:]
  along_y = cubic_weights(rows[..., None] - jnp.arange(height))
  # Concatenated, not reshaped: after a reshape the rendering loop would compute its indices by division.
  lines = jnp.concatenate([frames[:, :, c] for c in range(channels)], axis=-1)
  moved = jnp.matmul(along_y, lines, precision=lax.Precision.HIGHEST)
  moved = moved.reshape(*rows.shape, channels, width).transpose(0, 3, 1, 2)  # [N, W, h, C]
  below = jnp.floor(columns).astype(int)
  total = 0.0
  for index in (below + offset for offset in range(-1, 3)):
    taken = jax.vmap(lambda frame, at: jnp.take(frame, at, axis=0, mode='clip'))(moved, index)
    total += cubic_weights(columns - index)[:, :, None, None] * taken
  return total.swapaxes(1, 2)


def settings_from_config(config: Any) -> SimulatorSettings:
  """The settings in a config's `simulator` section, a mapping with the field names of the dataclasses."""

  def build(kind, section):
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
    parts = {'scene': SceneSettings, 'sweep': SweepSettings, 'sensor': SensorSettings}
    return kind(**{name: build(parts[name], value) if name in parts else value for name, value in values.items()})

  return build(SimulatorSettings, config)


def preset_settings(name: str, settings: SimulatorSettings) -> SimulatorSettings:
  """The settings with a single camera of `cameras.CAMERAS`, with its own sweep, breathing, drift and blur.

  DDFF-12's frames are crops of images 552 px wide, as in the data set, and means of 81 views, which leaves a ninth of
  the noise. DefocusNet's are rendered and have neither noise nor a fixed pattern. Neither has JPEG, denoising,
  sharpening, vignetting, tone curve or exposure, and lens blur is at most 0.9 px. The frames of all other cameras are
  full images.

  Args:
    name: name of the camera.
    settings: the remaining settings.

  Raises:
    InputError: there is no such camera.
  """
  sweep = dataclasses.replace(
    settings.sweep,
    cameras=(name,),
    far_dpt=None,
    range_dpt=None,
    spacing='camera',
    uneven=0.0,
    blur_px=None,
    breathing=(1.0, 1.0),
    zoom=(0.5, 2.0),  # no limit
    shake_px=(0.0, 0.0),
    aligned=0.0,
    no_metadata=0.0,
    any_zoom=0.0,
  )
  camera, sensor, lens_sigma_px, view_width_px = as_camera(name), settings.sensor, settings.lens_sigma_px, 0
  patterned = 0.0 if camera.aligned and camera.kernel != 'views' else settings.patterned
  if camera.aligned:
    # The mean of VIEWS^2 views has 1 / VIEWS of their noise.
    share = 1 / defocus.VIEWS if camera.kernel == 'views' else 0.0
    shot, read = (tuple(share * amount for amount in pair) for pair in (sensor.shot_noise, sensor.read_noise))
    correlated = sensor.correlated if share else 0.0
    sensor = dataclasses.replace(IDEAL, shot_noise=shot, read_noise=read, correlated=correlated)
    lens_sigma_px = tuple(min(sigma, _LENS_SIGMA_OF_COMPUTED_PX) for sigma in lens_sigma_px)
  if camera.kernel == 'views':
    view_width_px = max(int(camera.sensor_width_px), settings.width_px)
  return dataclasses.replace(
    settings,
    num_frames=camera.num_frames,
    view_width_px=view_width_px,
    lens_sigma_px=lens_sigma_px,
    patterned=patterned,
    sweep=sweep,
    sensor=sensor,
  )


def focus_unit(settings: SimulatorSettings) -> str:
  """The unit of focus and target in all stacks with these settings, one of `cameras.UNITS`.

  Raises:
    InputError: their cameras have different units.
  """
  units = sorted({as_camera(camera).unit for camera in settings.sweep.cameras})
  if len(units) > 1:
    raise InputError(f'simulator.sweep.cameras have the units {", ".join(units)}, expected cameras of one unit')
  return units[0]
