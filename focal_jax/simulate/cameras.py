"""Cameras, and the settings of their random focus sweeps.

`CAMERAS` are presets; any `Camera` may be used instead. `focus_sweep` draws the sweeps.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from focal_jax import optics
from focal_jax.errors import InputError
from focal_jax.simulate.defocus import VIEWS

PIXEL_PITCH_M = 1.4e-6
UNITS = ('1/m', 'px', 'm')  # `Sweep.unit` is an index into these
KERNELS = ('disc', 'views')
SPACINGS = ('dioptres', 'random', 'camera')


@dataclasses.dataclass(frozen=True)
class Camera:
  """A camera and its usual sweep.

  The zoom error alpha = alpha_slope_m * dioptres + alpha_intercept is added to the relative field of view of the thin
  lens.

  Raises:
    InputError: naming camera and field, for an impossible value.
  """

  name: str
  focal_length_m: float
  f_number: float
  sensor_width_px: float
  pixel_pitch_m: float = PIXEL_PITCH_M
  alpha_slope_m: float = 0.0
  alpha_intercept: float = 0.0
  beta_px: tuple[float, float] = (0.0, 0.0)  # drift along x of each frame: mean and standard deviation, sensor px
  gamma_px: tuple[float, float] = (0.0, 0.0)  # the same along y
  # Two or more focus distances, far to near, infinity allowed. Sweeps with another number of frames interpolate them in
  # dioptres: two ends give a sweep that is linear in dioptres, and so in disparity.
  focus_m: tuple[float, ...] = (0.9, 0.1)
  num_frames: int = 10  # frames of the usual sweep
  unit: str = '1/m'  # unit of focus and target, one of UNITS; 'px' is DDFF-12's disparity
  kernel: str = 'disc'  # or 'views': VIEWS x VIEWS pinholes across the aperture, as in a light field
  aligned: bool = False  # computed or rendered frames: constant field of view (image distance f) and exposure, no drift

  def __post_init__(self):
    def check(field, holds, expected):
      if not holds:
        raise InputError(f'camera {self.name}: {field} is {getattr(self, field)!r}, expected {expected}')

    for field in ('focal_length_m', 'f_number', 'sensor_width_px', 'pixel_pitch_m'):
      check(field, 0 < getattr(self, field) < math.inf, 'a finite number above 0')
    check('focus_m', len(self.focus_m) >= 2, 'at least two distances')
    check('focus_m', all(a > b for a, b in zip(self.focus_m, self.focus_m[1:], strict=False)), 'far to near')
    check('focus_m', self.focus_m[-1] > self.focal_length_m, f'all beyond the focal length {self.focal_length_m}')
    check('num_frames', self.num_frames >= 2, 'at least 2')
    check('unit', self.unit in UNITS, f'one of {", ".join(UNITS)}')
    check('focus_m', self.unit != 'm' or self.focus_m[0] < math.inf, 'finite distances for the unit m')
    check('kernel', self.kernel in KERNELS, f'one of {", ".join(KERNELS)}')

  def sweep_dpt(self, num_frames: int) -> Float[np.ndarray, ' N']:
    """Dioptres of the usual sweep, far to near; exactly `focus_m` if it has that many."""
    nodes = 1 / np.asarray(self.focus_m)
    return np.interp(np.linspace(0, len(nodes) - 1, num_frames), np.arange(len(nodes)), nodes)


_DDFF_PITCH_M = 7728 * 1.4e-6 / 552  # the Lytro Illum's sensor, 7728 px of 1.4 um, shared by 552 micro-lens images
_DDFF_FOCAL_LENGTH_M = optics.DDFF_FOCAL_LENGTH_PX * _DDFF_PITCH_M

CAMERAS = {
  camera.name: camera
  for camera in (
    # The phones that Won and Jeon measured (ECCV 2022, section 4), with the sweep of their simulator.
    Camera(
      name='pixel_4_xl',
      focal_length_m=0.0044,
      f_number=1.7,
      sensor_width_px=4032.0,
      alpha_slope_m=-0.00266,
      alpha_intercept=0.019155,
      beta_px=(-4.45515, 7.18485),
      gamma_px=(-9.9504701, 8.04556863),
    ),
    Camera(
      name='pixel_6',
      focal_length_m=0.0068,
      f_number=1.9,
      sensor_width_px=4080.0,
      alpha_slope_m=-0.00429249,
      alpha_intercept=0.00330253,
      beta_px=(0.470281, 6.2634662),
      gamma_px=(2.69174424, 6.859772247),
    ),
    Camera(
      name='galaxy_s8_plus',
      focal_length_m=0.0043,
      f_number=1.5,
      sensor_width_px=4032.0,
      alpha_slope_m=-0.00203839,
      alpha_intercept=0.0166955,
      beta_px=(4.430173117, 4.60067699),
      gamma_px=(3.695449964, 3.589144555),
    ),
    Camera(
      name='galaxy_note_10',
      focal_length_m=0.0048,
      f_number=1.7,
      sensor_width_px=4032.0,
      alpha_slope_m=-0.00402384,
      alpha_intercept=0.0247385,
      beta_px=(-4.315575939, 2.9198626),
      gamma_px=(-0.9456601, 0.153538997),
    ),
    # NVIDIA Shield Tablet. Lens and dioptres are from the EXIF of a sweep, which breathes by 1.040 instead of the 1.022
    # of a thin lens, hence the slope. Assumed: the sensor (1/4 inch, 5 megapixels), and a drift larger than the 1.3 px
    # of that sweep.
    Camera(
      name='tablet',
      focal_length_m=0.00295,
      f_number=1.475,
      sensor_width_px=2592.0,
      alpha_slope_m=-0.00242,
      beta_px=(0.0, 5.0),
      gamma_px=(0.0, 5.0),
      focus_m=(math.inf, 1 / 7.2327),
      num_frames=11,
    ),
    # A 50 mm lens on a 36 mm sensor. Breathes like a thin lens; the small drift is assumed.
    Camera(
      name='dslr',
      focal_length_m=0.05,
      f_number=1.8,
      sensor_width_px=6000.0,
      pixel_pitch_m=6e-6,
      beta_px=(0.0, 4.0),
      gamma_px=(0.0, 4.0),
      focus_m=(math.inf, 0.45),
    ),
    # DefocusNet's renderings (Maximov et al., CVPR 2020), FoD500. The authors do not give the width of the sensor;
    # later work assumes 3.1 mm with this lens (Si et al., CVPR 2023).
    Camera(
      name='defocusnet',
      focal_length_m=0.0029,
      f_number=1.0,
      sensor_width_px=256.0,
      pixel_pitch_m=3.1e-3 / 256,
      focus_m=(1.5, 0.7, 0.3, 0.15, 0.1),
      num_frames=5,
      unit='m',
      aligned=True,
    ),
    # DDFF-12 (Hazirbas et al., ACCV 2018): refocused light fields. The aperture is that of the grid, eight baselines
    # wide.
    Camera(
      name='ddff12',
      focal_length_m=_DDFF_FOCAL_LENGTH_M,
      f_number=_DDFF_FOCAL_LENGTH_M / ((VIEWS - 1) * optics.DDFF_BASELINE_M),
      sensor_width_px=552.0,
      pixel_pitch_m=_DDFF_PITCH_M,
      focus_m=(optics.DDFF_FARTHEST_M, optics.DDFF_NEAREST_M),
      unit='px',
      kernel='views',
      aligned=True,
    ),
  )
}

PHONES = ('pixel_4_xl', 'pixel_6', 'galaxy_s8_plus', 'galaxy_note_10')


def as_camera(camera: str | Camera) -> Camera:
  """A camera unchanged, or the preset of that name.

  Raises:
    InputError: there is no such preset; the message lists them.
  """
  if isinstance(camera, Camera):
    return camera
  if camera not in CAMERAS:
    raise InputError(f"camera '{camera}' is not known, expected one of {', '.join(CAMERAS)}")
  return CAMERAS[camera]


@dataclasses.dataclass(frozen=True)
class SweepSettings:
  """Random parameters of each sweep. Pairs are the ends of a uniform distribution unless stated otherwise.

  Raises:
    InputError: naming the field, for an unknown camera, a pair in the wrong order, or a focus that a camera cannot
      reach.
  """

  cameras: tuple[str | Camera, ...] = PHONES  # cameras, drawn with equal probability
  far_dpt: tuple[float, float] | None = (0.0, 2.0)  # focus of the first frame; None: the camera's sweep
  range_dpt: tuple[float, float] | None = (2.0, 8.0)  # focus range from first to last frame; None: the camera's sweep
  spacing: str = 'dioptres'  # focus positions: uniform in 'dioptres', 'random', or as in the 'camera' sweep
  uneven: float = 0.3  # maximum deviation of focus positions from that spacing, as a share of half a step
  # Blur radius of the far end when focused at the near end, log-uniform. None: from the optics at the image width.
  blur_px: tuple[float, float] | None = (0.8, 7.0)
  breathing: tuple[float, float] = (0.0, 3.0)  # factor on the camera's deviation from the thin lens's zoom
  # Limits of the zoom between the first and the last frame. A lens too long for them is treated as internally
  # focusing, with the field of view of a shorter one.
  zoom: tuple[float, float] = (0.96, 1.10)
  shake_px: tuple[float, float] = (0.0, 1.5)  # standard deviation of an additional drift, px of the rendered image
  aligned: float = 0.25  # share of sweeps without any motion, field of view 1
  no_metadata: float = 0.25  # share of sweeps without metadata (fov = 1, the whole zoom is in alpha)
  # Share of all sweeps, taken from those without metadata, with a random zoom within the limits that is linear in
  # dioptres, unlike that of real lenses. It covers stacks with frames in the opposite order.
  any_zoom: float = 0.0
  exposure: tuple[float, float] = (0.0, 0.05)  # standard deviation of exposure relative to the last frame, in stops
  white_balance: tuple[float, float] = (0.0, 0.05)  # the same for the gains of red and blue

  def __post_init__(self):
    def check(field, holds, expected):
      if not holds:
        raise InputError(f'simulator.sweep.{field} is {getattr(self, field)!r}, expected {expected}')

    for field in ('far_dpt', 'range_dpt', 'blur_px', 'breathing', 'zoom', 'shake_px', 'exposure', 'white_balance'):
      pair = getattr(self, field)
      if pair is None and field in ('far_dpt', 'range_dpt', 'blur_px'):
        continue
      check(field, isinstance(pair, tuple) and len(pair) == 2 and pair[0] <= pair[1], 'two numbers, the lower first')
    check('spacing', self.spacing in SPACINGS, f'one of {", ".join(SPACINGS)}')
    check('uneven', 0 <= self.uneven < 1, 'a number from 0 to below 1')
    check('far_dpt', self.far_dpt is None or self.far_dpt[0] >= 0, 'nothing beyond infinity')
    check('range_dpt', self.range_dpt is None or self.range_dpt[0] > 0, 'more than 0')
    check('blur_px', self.blur_px is None or self.blur_px[0] > 0, 'more than 0')
    check('any_zoom', 0 <= self.any_zoom <= self.no_metadata, 'a share from 0 to no_metadata')
    check('cameras', len(self.cameras) > 0, 'at least one')
    for camera in map(as_camera, self.cameras):
      usual = camera.sweep_dpt(2)
      far = self.far_dpt or (usual[0], usual[0])
      near = far[1] + (self.range_dpt[1] if self.range_dpt else usual[1] - usual[0])
      field = 'far_dpt' if self.range_dpt is None else 'range_dpt'
      check(field, near * camera.focal_length_m < 1, f'a focus beyond the focal length of {camera.name}')
      check('far_dpt', camera.unit != 'm' or far[0] > 0, f'more than 0 for {camera.name} with unit m')
