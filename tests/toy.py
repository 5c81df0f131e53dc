"""A network small enough to compile in a second or two, so that what surrounds it can be tested: the training system.

Alignment and depth are one convolution each, with batch normalisation. As a program it is the command line with this
network, `python tests/toy.py --config=tests/toy.py --workdir=DIR`, and as a config a few steps of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program, its folder is there instead

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from focal_jax.models import registry
from focal_jax.models.blocks import expected_focus
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.end_to_end import EndToEnd
from focal_jax.recipes import default
from focal_jax.simulate.textures import draw_texture
from focal_jax.stack import FocalStack


class ToyAlignment(nn.Module):
  axis_name: str | None = None
  normalise: bool = True

  @nn.compact
  def __call__(self, images, fov, *, size=None, train):
    found = Features(3, self.axis_name, self.normalise, name='features')(images, train=train).mean((2, 3))
    return found * jnp.array([0.01, 1.0, 1.0])  # a zoom, and shifts in px


class ToyDepth(nn.Module):
  axis_name: str | None = None
  normalise: bool = True

  @nn.compact
  def __call__(self, images, focus, *, train):
    scores = Features(1, self.axis_name, self.normalise, name='features')(images, train=train)[..., 0]
    weights = nn.softmax(scores, axis=1)
    depth = expected_focus(weights, focus)
    return DepthMaps((depth, depth**2, depth, depth), weights, confidence=jnp.ones_like(depth))


class Features(nn.Module):
  features: int
  axis_name: str | None
  normalise: bool

  @nn.compact
  def __call__(self, images, *, train):
    # A bias removed by normalisation or softmax has only rounding as its gradient, which Adam turns into full steps.
    x = nn.Conv(4, (3, 3), use_bias=not self.normalise)(images)
    if self.normalise:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
    return nn.Dense(self.features, use_bias=self.features > 1)(nn.relu(x))


def make_toy(axis_name: str | None = None, normalise: bool = True) -> EndToEnd:
  return EndToEnd(ToyDepth(axis_name, normalise), ToyAlignment(axis_name, normalise))


MODEL = {'depth': {'name': 'toy'}, 'align': {'name': 'toy'}}
registry.DEPTH['toy'] = ToyDepth
registry.ALIGN['toy'] = registry.Alignment(ToyAlignment)


def get_config(variant: str = '') -> ConfigDict:
  """40 steps on simulated stacks of 3 frames, 16 x 16 px; on those of `variant`, a source, if it is given."""
  config = default.smoke(default.get_config())
  config.model = ConfigDict(MODEL)
  config.simulator.update(num_surfaces=2, height_px=16, width_px=16, margin_px=4)
  config.update(batch_size=4, steps=40, log_every=1, checkpoint_every=3, validation_every=10)
  config.optimizer.update(learning_rate=0.01, schedule='cosine', warmup_steps=2, clip_norm=1.0)
  config.ema_decay = 0.9
  if variant:
    config.data.source = variant
    config.data.crop_px = 32
  return config


def write_stacks(root: Path) -> str:
  """Seven stacks to train on and three to validate on, of four frames of noise; returns the name of the source."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 7), ('val', 3)):
    for index in range(count):
      folder = root / split / str(index)
      folder.mkdir(parents=True)
      for frame in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / f'{frame}.png')
      np.save(folder / 'target.npy', rng.uniform(0, 3, (40, 36)))
      np.save(folder / 'motion.npy', rng.normal(size=(4, 3)))
  return f'folder:{root}'


def random_batch(rng, size=8, frames=3, side=8) -> FocalStack:
  """A batch whose valid pixels are spread unevenly over its stacks."""
  valid = (rng.random((size, side, side)) < np.linspace(0, 1, size)[:, None, None]).astype(np.float32)

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  return FocalStack(
    images=rng.random((size, frames, side, side, 3)).astype(np.float32),
    focus=np.sort(rng.random((size, frames)).astype(np.float32), -1),
    fov=np.ones((size, frames), np.float32),
    target=normal(size, side, side),
    valid=valid,
    motion=normal(size, frames, 3),
  )


def simulate_batch(keys, settings, textures=None) -> FocalStack:
  """In place of `simulate.stacks.simulate_batch`, which takes seconds to compile: noise, on the textures if given."""
  size, (height, width) = (len(keys), settings.num_frames), (settings.height_px, settings.width_px)
  noise = jax.vmap(lambda key: jax.random.uniform(key, (settings.num_frames, height, width, 3)))(keys)
  if textures is not None:
    crops = jax.vmap(lambda key: draw_texture(key, textures, height, width)[1])(keys)
    noise *= jnp.moveaxis(crops, 1, -1)[:, None]
  return FocalStack(
    images=noise,
    focus=jnp.broadcast_to(jnp.linspace(0.0, 1.0, settings.num_frames), size),
    fov=jnp.ones(size),
    target=noise[:, 0, ..., 0],
    valid=jnp.ones((size[0], height, width)),
    motion=jnp.zeros((*size, 3)),
    all_in_focus=noise[:, 0],
  )


if __name__ == '__main__':
  from focal_jax.main import run

  run()
