"""Where the frames show texture; elsewhere depth cannot be known, whatever a method reports.

A background far beyond the sweep is sharp in no frame. Networks fill it in from its surroundings, sometimes with high
confidence.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from focal_jax.align.motion import align_plane
from focal_jax.focus.classical import luminance_on_host

# Standard deviations, px, of the two Gaussians whose difference is the texture of each scale, fine to coarse.
BANDS_PX = ((0.6, 1.2), (1.2, 2.4), (2.4, 4.8))
WINDOW_PX = 4.0  # standard deviation of the Gaussian over which squares are averaged
NOISE_PX = 12.0  # likewise, of what a place shows when it is least sharp
PLAINEST = 0.05  # share of a frame that is taken to show noise alone
NOISE = (0.25 / 255, 1.2 / 255)  # least and greatest standard deviation of the noise in a band, luminance 0 .. 1
UNEVEN = 1.5  # times the noise of the plainest places that other places may have
TEXTURE = (1.8, 2.8)  # times the noise from which on there may be texture, and there surely is
MIN_SHARE = 0.01  # of the picture that must show texture at a scale, or a coarser one is taken


def texture_share(
  frame: Callable[[int], Float[np.ndarray, 'H W 3']],
  motion: Float[np.ndarray, 'N K'] | None,
  fov: Float[np.ndarray, 'N'],
) -> Float32[np.ndarray, 'H W']:
  """How surely some frame shows texture in each pixel, 0 .. 1.

  It is looked for at the finest scale at which the stack has any, so that what never gets sharp shows none.

  Args:
    frame: RGB 0 .. 1 of frame n as it is, not aligned: resampling takes noise away, from each frame another share.
    motion: that aligns the frames; None: they are aligned.
    fov: relative field of view of each frame.
  """
  share = None
  for band in BANDS_PX:
    share = _share_in_band(frame, band, motion, fov)
    if np.mean(share > 0.5) >= MIN_SHARE:
      break
  return share


def _share_in_band(
  frame: Callable[[int], Float[np.ndarray, 'H W 3']],
  band: tuple[float, float],
  motion: Float[np.ndarray, 'N K'] | None,
  fov: Float[np.ndarray, 'N'],
) -> Float32[np.ndarray, 'H W']:
  plainest, highest, lowest = [], None, None
  for n in range(len(fov)):
    energy = _energy(frame(n), band)
    plainest.append(np.quantile(energy[::2, ::2], PLAINEST))
    inside: Bool[np.ndarray, 'H W'] | bool = True
    if motion is not None:
      inside = align_plane(np.ones_like(energy), motion[n], float(fov[n])) > 0.99
      energy = align_plane(energy, motion[n], float(fov[n]))
    highest = np.where(inside, energy, 0) if highest is None else np.maximum(highest, np.where(inside, energy, 0))
    low = np.where(inside, energy, np.inf)
    lowest = low if lowest is None else np.minimum(lowest, low)
  noise = np.clip(np.sqrt(np.quantile(plainest, 0.1)), *NOISE)
  lowest = np.where(np.isfinite(lowest), lowest, noise**2)
  around = np.sqrt(ndimage.gaussian_filter(lowest, NOISE_PX, mode='nearest'))
  ratio = np.sqrt(highest) / np.clip(around, noise, UNEVEN * noise)
  rising = np.clip((ratio - TEXTURE[0]) / (TEXTURE[1] - TEXTURE[0]), 0, 1)
  return (rising**2 * (3 - 2 * rising)).astype(np.float32)


def _energy(frame: Float[np.ndarray, 'H W 3'], band: tuple[float, float]) -> Float32[np.ndarray, 'H W']:
  luma = luminance_on_host(frame)
  fine, coarse = (ndimage.gaussian_filter(luma, sigma, mode='nearest', truncate=3.0) for sigma in band)
  return ndimage.gaussian_filter((fine - coarse) ** 2, WINDOW_PX, mode='nearest', truncate=3.0)
