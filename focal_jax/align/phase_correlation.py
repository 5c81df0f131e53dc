"""Blockwise phase correlation of two images (Kuglin and Hines, 1975): the shift of each block and its confidence."""

import functools

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex, Float, Float64, Int
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

NOISE = 1.5 / 255  # standard deviation of pixel noise, luminance 0 .. 1
BAND = 0.06  # cycles per px; frequencies are weighted by a Gaussian of this standard deviation
PEAK = 0.2  # minimum height of a peak that votes; 1 for equal phases
PEAK_RATIO = 1.4  # minimum ratio of its height to the second peak's
PEAK_PX = 10  # minimum distance of the second peak
SHADING_PX = 8.0  # standard deviation of the Gaussian that defines coarse shading
EDGE = 0.03  # minimum ratio of a block's mean squared gradients in its weakest and strongest direction


def remove_shading(picture: Float[np.ndarray, 'H W']) -> Float[np.ndarray, 'H W']:
  """The picture without coarse shading."""
  return picture - ndimage.gaussian_filter(picture, SHADING_PX, mode='nearest')


@functools.cache
def _window(block: int) -> Float[np.ndarray, 'B B']:
  hann = np.sin(np.pi * (np.arange(block) + 0.5) / block) ** 2
  return np.outer(hann, hann).astype(np.float32)


@functools.cache
def _band(height: int, width: int) -> Float[np.ndarray, 'H F']:
  """Weights of the frequencies of `rfft2`, scaled such that equal phases give a peak of height 1 after `irfft2`."""
  fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  low = 1 - np.exp(-((fy * height) ** 2 + (fx * width) ** 2) / (2 * 1.5**2))  # the window leaks
  band = low * np.exp(-(fx**2 + fy**2) / (2 * BAND**2))
  return (band / scipy.fft.irfft2(band, (height, width))[0, 0]).astype(np.float32)


def block_spectra(
  picture: Float[np.ndarray, 'H W'], block: int
) -> tuple[Complex[np.ndarray, 'K B F'], Float[np.ndarray, 'K'], Int[np.ndarray, 'K 2']]:
  """Spectrum, standard deviation (0 for a straight edge) and top left corner (y, x) of every windowed block.

  Args:
    picture: luminance 0 .. 1.
    block: side length of the blocks, px.
  """
  window = _window(block)
  # Evenly spread, about half a block apart, up to both borders.
  tops, lefts = (
    np.unique(np.linspace(0, n - block, max(1, round((n - block) / (block / 2))) + 1).round().astype(int))
    for n in picture.shape
  )

  def cut(x):
    return sliding_window_view(x, (block, block))[tops[:, None], lefts].reshape(-1, block, block)

  blocks = cut(picture)
  mean = np.einsum('kyx,yx->k', blocks, window) / window.sum()
  blocks = (blocks - mean[:, None, None]) * window
  texture = np.sqrt((blocks**2).sum((1, 2)) / (window**2).sum())
  # A straight edge correlates in a ridge; the window turns it into a false peak at zero motion along the edge.
  gy, gx = np.gradient(picture)
  xx, yy, xy = (np.einsum('kyx,yx->k', cut(product), window) for product in (gx * gx, gy * gy, gx * gy))
  texture[xx * yy - xy**2 <= EDGE / (1 + EDGE) ** 2 * (xx + yy) ** 2] = 0
  grid = np.stack(np.meshgrid(tops, lefts, indexing='ij'), -1).reshape(-1, 2)
  return scipy.fft.rfft2(blocks), texture, grid


def correlate(
  a: Complex[np.ndarray, '*K H F'], b: Complex[np.ndarray, '*K H F'], shape: tuple[int, int], power: float
) -> Float[np.ndarray, '*K H W']:
  """Phase correlation of two spectra.

  Args:
    a, b: spectra from `rfft2`.
    shape: height and width of the image or block.
    power: noise power per frequency, which limits the whitening.
  """
  whitened = a * b.conj() / np.sqrt((np.abs(a) ** 2 + power) * (np.abs(b) ** 2 + power))
  return scipy.fft.irfft2(whitened * _band(*shape), shape)


def peaks(
  a: Complex[np.ndarray, 'K B F'], b: Complex[np.ndarray, 'K B F'], block: int
) -> tuple[Float64[np.ndarray, 'K 2'], Float64[np.ndarray, 'K 2 2'], Bool[np.ndarray, 'K']]:
  """The correlation peak of each pair of blocks.

  Args:
    a, b: spectra of the blocks (`block_spectra`).
    block: side length of the blocks, px.

  Returns:
    Shift (x, y) of `a` relative to `b` in px, the negative Hessian of the peak, and whether the peak is distinct.
  """
  surface = correlate(a, b, (block, block), NOISE**2 * float((_window(block) ** 2).sum()))
  surface = np.fft.fftshift(surface, axes=(1, 2))
  k, half = np.arange(len(surface)), block // 2
  # Beyond a quarter of the block the overlap is too small; and the peak needs 3 x 3 samples.
  inner = surface[:, half // 2 : -(half // 2), half // 2 : -(half // 2)]
  top = inner.reshape(len(inner), -1).argmax(1)
  y, x = top // inner.shape[2] + half // 2, top % inner.shape[2] + half // 2
  near = {(dy, dx): surface[k, y + dy, x + dx].astype(np.float64) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
  height = near[0, 0]
  gradient = np.stack([near[0, 1] - near[0, -1], near[1, 0] - near[-1, 0]], -1) / 2
  xx, yy = 2 * height - near[0, 1] - near[0, -1], 2 * height - near[1, 0] - near[-1, 0]
  xy = -(near[1, 1] + near[-1, -1] - near[1, -1] - near[-1, 1]) / 4
  information = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
  curved = (xx > 0) & (yy > 0) & (xx * yy - xy**2 > 1e-3 * (xx + yy) ** 2)
  information[~curved] = np.eye(2)
  offset = np.linalg.solve(information, gradient[..., None])[..., 0]
  # The second peak: the highest sample outside the neighbourhood of the first.
  rows = np.abs(np.arange(block) - y[:, None])[:, :, None]
  columns = np.abs(np.arange(block) - x[:, None])[:, None, :]
  second = np.where(np.maximum(rows, columns) > PEAK_PX, surface, 0).max((1, 2))
  clear = curved & (np.abs(offset).max(1) <= 1) & (height >= PEAK) & (height >= PEAK_RATIO * second)
  return offset + np.stack([x, y], -1) - half, information, clear
