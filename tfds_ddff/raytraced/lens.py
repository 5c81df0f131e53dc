"""A thin lens from pinhole views: frames of any focus and aperture from one set of views.

A lens of finite aperture forms the mean of the pinhole images seen from all points of the aperture, each shifted so
that points at the focus distance coincide (Isaksen, McMillan and Gortler, "Dynamically reparameterized light fields",
SIGGRAPH 2000). Occlusion, reflections and the shape of the aperture are therefore exact, as far as the views are dense
enough. Shifts are by phase in the Fourier domain, so they do not blur.
"""

import numpy as np
import scipy.fft
from jaxtyping import Complex64, Float, Float32

GRIDS = {'grid': 1, 'views': 2}  # apertures of separate views, and the step from one used view to the next
APERTURES = ('disc', 'polygon', 'gaussian', *GRIDS)


def aperture_weights(
  kind: str, views: int, radius: float = 1.0, corners: int = 6, turn: float = 0.0
) -> Float[np.ndarray, '{views} {views}']:
  """The weight of each view of a square grid; they sum to 1.

  Args:
    kind: disc; polygon, with straight blades; gaussian, as of an apodised lens; grid, every view alike, or views,
      every second view alike, as in frames computed from a light field, whose blur shows copies instead of a disc.
    views: views along each side of the grid.
    radius: of the aperture, where 1 reaches the sides of the grid; no effect on `GRIDS`.
    corners, turn: number of blades of a polygon, and its rotation in radians.

  Raises:
    ValueError: an unknown kind.
  """
  position = np.linspace(-1, 1, views)
  y, x = np.meshgrid(position, position, indexing='ij')
  distance = np.hypot(x, y)
  if kind in GRIDS:
    weights = np.zeros((views, views))
    weights[:: GRIDS[kind], :: GRIDS[kind]] = 1.0
  elif kind == 'gaussian':
    weights = np.exp(-2 * (distance / radius) ** 2) * (distance <= 1.0)
  elif kind in ('disc', 'polygon'):
    if kind == 'polygon':
      sector = 2 * np.pi / corners
      angle = (np.arctan2(y, x) + turn) % sector - sector / 2
      distance = distance * np.cos(angle) / np.cos(sector / 2)
    # Views at the rim count by the share of their cell that is inside.
    weights = np.clip((radius - distance) * (views - 1) / 2 + 0.5, 0.0, 1.0)
  else:
    raise ValueError(f'{kind!r} is no aperture, expected one of {", ".join(APERTURES)}')
  return weights / weights.sum()


def transform(views: Float32[np.ndarray, 'V V H W 3']) -> Complex64[np.ndarray, 'V V H K 3']:
  """The Fourier transform of the views, for `refocus`."""
  return scipy.fft.rfft2(views, axes=(2, 3))


def refocus(
  transformed: Complex64[np.ndarray, 'V V H K 3'],
  width: int,
  weights: Float[np.ndarray, 'V V'],
  disparity_px: Float[np.ndarray, ' P'],
  shift_px: Float[np.ndarray, 'P 2'] | None = None,
  blur_px: float = 0.0,
) -> Float32[np.ndarray, 'P H {width} 3']:
  """Frames of the lens, one for each disparity. They wrap around at the borders, so leave a margin.

  Args:
    transformed: views from a square grid on the aperture, from `transform`.
    width: of the views, px.
    weights: weight of each view, from `aperture_weights`.
    disparity_px: of each frame: how far the points in focus move between views from opposite sides of the grid.
    shift_px: of each frame (x, y), as by a hand that shakes; None: none.
    blur_px: standard deviation of a Gaussian blur of all frames, as of lens and pixel.
  """
  views, _, height, columns, _ = transformed.shape
  position = np.linspace(-0.5, 0.5, views)
  fx, fy = scipy.fft.rfftfreq(width), scipy.fft.fftfreq(height)

  def phases(frequency, shift):
    return np.exp(-2j * np.pi * frequency * shift).astype(np.complex64)

  rows = phases(fy[:, None, None], disparity_px[:, None] * position)  # [H, P, V]
  total = np.zeros((len(disparity_px), height, columns, 3), np.complex64)
  for j in range(views):
    if weights[:, j].any():
      column = transformed[:, j].swapaxes(0, 1).reshape(height, views, -1)
      mean = np.matmul(rows * weights[:, j].astype(np.float32), column).reshape(height, -1, columns, 3)
      total += mean.swapaxes(0, 1) * phases(fx, disparity_px[:, None] * position[j])[:, None, :, None]
  if shift_px is not None:
    total *= (phases(fx, shift_px[:, :1])[:, None] * phases(fy, shift_px[:, 1:])[:, :, None])[..., None]
  if blur_px:
    total *= np.exp(-2 * (np.pi * blur_px) ** 2 * (fx**2 + fy[:, None] ** 2)).astype(np.float32)[..., None]
  return scipy.fft.irfft2(total, (height, width), axes=(1, 2))
