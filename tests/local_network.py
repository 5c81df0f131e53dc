"""The end-to-end network with simple parts without parameters that see few pixels and compile instantly."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image

from focal_jax.models.blocks import expected_focus, focus_distribution
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.end_to_end import EndToEnd
from focal_jax.prediction.network_predictor import NetworkPredictor

CELL = 32  # px


class BrightnessMotion(nn.Module):
  """In place of the alignment network: from how much darker a frame is than the last one, and the sizes of frame and
  array, whose ends networks feel.
  """

  def __call__(self, images, fov, *, size, train):
    rows, columns = (jnp.arange(n) < end for n, end in zip(images.shape[2:4], size, strict=True))
    inside = rows[:, None] & columns
    mean = jnp.sum(images.mean(-1) * inside, (2, 3)) / inside.sum()
    darker = mean[:, -1:] - mean
    return darker[..., None] * jnp.array([0.1, 10.0, -20.0]) * jnp.sqrt(size[0] + images.shape[2])


class CellDepth(nn.Module):
  """In place of the depth network: from the contrast of a pixel and its right-hand and lower neighbours, and of all of
  its cell, black beyond the array.
  """

  def __call__(self, images, focus, *, train):
    grey = images.mean(-1)
    b, n, h, w = grey.shape
    right = jnp.pad(grey[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=-1)
    below = jnp.pad(grey[..., 1:, :], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=-1)
    contrast = jnp.abs(grey - right) + jnp.abs(grey - below)
    cells = contrast.reshape(b, n, h // CELL, CELL, w // CELL, CELL).mean((3, 5))
    weights = focus_distribution(10 * (contrast + jnp.repeat(jnp.repeat(cells, CELL, 2), CELL, 3)))
    depth = expected_focus(weights, focus)
    return DepthMaps((depth,) * 4, weights)


def local_model(**arguments) -> NetworkPredictor:
  return NetworkPredictor('local', EndToEnd(CellDepth(), BrightnessMotion(), **arguments), {}, {}, [])


def soft_frames(frames: int, height: int, width: int) -> np.ndarray:
  """[N, H, W, 3] uint8: soft texture, each frame brighter than the one before."""
  rng = np.random.default_rng(0)
  pictures = []
  for brightness in np.linspace(0.6, 1.0, frames):
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8))
    pictures.append(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * brightness)
  return np.stack(pictures).astype(np.uint8)
