"""Renders one scene and photographs it with sweeps of focus through its depth, by lenses of different aperture."""

import dataclasses
from typing import Any

import mitsuba as mi
import numpy as np
from jaxtyping import Float32

from tfds_ddff.raytraced.lens import GRIDS, aperture_weights, refocus, transform
from tfds_ddff.raytraced.scenes import Camera, Photographs, draw_scene, log_uniform

SIZE_PX = 160  # side of the frames
MARGIN_PX = 20  # rendered around them, for what blur and shake bring in
PLANES = 20  # frames of a sweep
SWEEPS = 2  # sweeps of a scene
PATHS = 675  # light paths per pixel, over all views
RADIUS = (0.5, 1.0)  # log-uniform: radius of the second sweep's aperture; the first has 1
LENS_BLUR_PX = (0.1, 1.2)  # log-uniform: standard deviation
SHAKE_PX = 0.125  # largest standard deviation of the frames' shifts
EXTENT_QUANTILES = (0.03, 0.97)  # of the inverse depths: the ends of a scene
MIN_EXTENT = 0.3  # shortest sweep, relative to the scene's extent


@dataclasses.dataclass(frozen=True)
class Optics:
  """A kind of camera.

  Attributes:
    share: of the scenes.
    blur_px: log-uniform: diameter of the blur at one end of the scene with focus at the other.
    apertures: shares of `lens.APERTURES`.
    views: views along each side of the aperture.
  """

  share: float
  blur_px: tuple[float, float]
  apertures: dict[str, float]
  views: int = 15


OPTICS = (
  Optics(0.5, (2.0, 28.0), {'disc': 0.55, 'polygon': 0.15, 'gaussian': 0.1, 'views': 0.2}),
  # Light-field cameras such as DDFF-12's: faint blur, mostly from separate views.
  Optics(0.25, (1.6, 6.0), {'disc': 0.3, 'polygon': 0.05, 'gaussian': 0.05, 'views': 0.6}),
  # Arrays of cameras, as in the HCI light fields: strong blur that shows copies.
  Optics(0.25, (8.0, 28.0), {'grid': 1.0}, views=9),
)


def render_scene(
  seed: int,
  photographs: Photographs,
  size_px: int = SIZE_PX,
  margin_px: int = MARGIN_PX,
  views: int | None = None,
  samples: int | None = None,
) -> dict[str, np.ndarray]:
  """The sweeps of a random scene.

  Args:
    seed: determines everything.
    photographs: for textures.
    size_px, margin_px: side of the frames, and the width of the margin rendered around them.
    views: views along each side of the aperture; None: as `OPTICS` say.
    samples: light paths per pixel of a view; None: `PATHS` over all views.

  Returns:
    light: [S, P, H, W, 3] float16, linear, 1 is about white; frames far to near.
    focus: [S, P] float32, inverse distances.
    inverse_depth: [H, W] float32, 1 / z of what the centre of the lens sees, 0 where nothing is.
    blur_px: [S] float32, diameter of the blur over the scene's extent.
    aperture: [S] names.
  """
  rng = np.random.default_rng([7, seed])
  camera, plugins = draw_scene(rng, size_px + 2 * margin_px, photographs)
  scene = mi.load_dict(plugins)
  inverse_depth = _inverse_depth(scene, camera)
  low, high = np.quantile(inverse_depth, EXTENT_QUANTILES)
  extent = max(high - low, 1e-3)
  optics = OPTICS[rng.choice(len(OPTICS), p=[optics.share for optics in OPTICS])]
  views = views or optics.views
  samples = samples or max(1, round(PATHS / views**2))
  blur_px = log_uniform(rng, *optics.blur_px)
  aperture = blur_px / (camera.focal_px * extent)  # diameter, in the unit of z
  light = _render_views(rng, scene, camera, aperture, views, samples)
  light /= max(np.quantile(light[::5, ::5], rng.uniform(0.9, 0.998)), 1e-3)
  transformed = transform(np.minimum(light, rng.choice([1.5, 4.0, 20.0])))  # highlights clip differently
  sweeps = []
  for sweep in range(SWEEPS):
    kind = str(rng.choice(list(optics.apertures), p=list(optics.apertures.values())))
    radius = log_uniform(rng, *RADIUS) if sweep and kind not in GRIDS else 1.0
    weights = aperture_weights(kind, views, radius, int(rng.integers(5, 9)), rng.uniform(0, 2 * np.pi))
    focus = low + extent * _positions(rng)
    frames = refocus(
      transformed,
      camera.size_px,
      weights,
      camera.focal_px * aperture * focus,
      _shake(rng),
      log_uniform(rng, *LENS_BLUR_PX),
    )
    inner = slice(margin_px, margin_px + size_px)
    sweeps.append((np.clip(frames[:, inner, inner], 0, 60), focus, blur_px * radius, kind))
  frames, focus, blur, kinds = zip(*sweeps, strict=True)
  return {
    'light': np.float16(frames),
    'focus': np.float32(focus),
    'inverse_depth': np.float32(inverse_depth[inner, inner]),
    'blur_px': np.float32(blur),
    'aperture': np.array(kinds),
  }


def _positions(rng: np.random.Generator) -> np.ndarray:
  """Focus of the planes, where 0 and 1 are the ends of the scene; most sweeps end about there, others anywhere."""
  anywhere = rng.random() < 0.4
  first, last = ((-0.3, 0.5), (0.5, 1.3)) if anywhere else ((-0.1, 0.1), (0.9, 1.1))
  first, last = rng.uniform(*first), rng.uniform(*last)
  return np.linspace(first, max(last, first + MIN_EXTENT), PLANES)


def _shake(rng: np.random.Generator) -> np.ndarray:
  """Shift of each plane in px; 0 in half of the sweeps, and a walk in some, as of a drifting camera."""
  shift = rng.normal(size=(PLANES, 2))
  if rng.random() < 0.3:
    shift = shift.cumsum(0)
  amount = rng.uniform(0, SHAKE_PX) if rng.random() < 0.5 else 0.0
  return amount * (shift - shift[-1])


def _sensor(camera: Camera, origin: tuple[float, float], samples: int, channels: str) -> Any:
  x, y = map(float, origin)
  film = {'type': 'hdrfilm', 'width': camera.size_px, 'height': camera.size_px, 'pixel_format': channels}
  return mi.load_dict(
    {
      'type': 'perspective',
      'fov': camera.field_of_view_degrees,
      'to_world': mi.ScalarTransform4f().look_at([x, y, 0], [x, y, 1], [0, 1, 0]),
      'film': film | {'component_format': 'float32', 'rfilter': {'type': 'box'}},
      'sampler': {'type': 'independent', 'sample_count': samples},
    }
  )


def _render_views(
  rng: np.random.Generator, scene: Any, camera: Camera, aperture: float, views: int, samples: int
) -> Float32[np.ndarray, '{views} {views} H W 3']:
  """Views from a square grid, `aperture` wide; the first index runs down, the second right, as in the images."""
  position = aperture * np.linspace(-0.5, 0.5, views)
  light = np.empty((views, views, camera.size_px, camera.size_px, 3), np.float32)
  for i, down in enumerate(position):
    for j, right in enumerate(position):
      sensor = _sensor(camera, (-right, -down), samples, 'rgb')
      light[i, j] = np.array(mi.render(scene, sensor=sensor, spp=samples, seed=int(rng.integers(1 << 30))))
  return np.nan_to_num(light, nan=0.0, posinf=0.0)


def _inverse_depth(scene: Any, camera: Camera) -> np.ndarray:
  """1 / z at a random point of each pixel, 0 where nothing is."""
  integrator = mi.load_dict({'type': 'aov', 'aovs': 'place:position'})
  image = np.array(mi.render(scene, sensor=_sensor(camera, (0, 0), 1, 'rgb'), integrator=integrator, spp=1))
  z = image[..., -1].astype(np.float64)
  return np.where(z > 1e-6, 1 / np.maximum(z, 1e-6), 0.0)
