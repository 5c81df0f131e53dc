"""A network small enough to compile in a second or two, so that what surrounds it can be tested: the training system.

Alignment and depth are one convolution each, with batch normalisation. As a program it is the command line with this
network, `python tests/toy.py --config=tests/toy.py --workdir=DIR`, and as a config a few steps of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program, its folder is there instead

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from configs import default
from focal_jax.models import registry
from focal_jax.stack import FocalStack, Prediction


class Toy(nn.Module):
  axis_name: str | None = None
  normalise: bool = True

  def setup(self):
    self.alignment = Features(3, self.axis_name, self.normalise)
    self.depth = Features(1, self.axis_name, self.normalise)

  def __call__(self, stack, *, align=True, train=False, size=None, motion=None):
    if motion is None:
      motion = self.estimate_motion(stack, train=train) if align else jnp.zeros((*stack.focus.shape, 3))
    scores = self.depth(stack.images, train=train)[..., 0]
    weights = nn.softmax(scores + motion[..., :1, None], axis=1)
    depth = jnp.einsum('bnhw,bn->bhw', weights, stack.focus)
    return Prediction(
      depth=depth,
      confidence=jnp.ones_like(depth),
      pyramid=(depth, depth**2, depth, depth),
      weights=weights,
      aligned=stack.images,
      coverage=jnp.ones_like(weights),
      motion=motion,
    )

  def estimate_motion(self, stack, *, train=False, size=None):
    return self.alignment(stack.images, train=train).mean((2, 3))


class Features(nn.Module):
  features: int
  axis_name: str | None
  normalise: bool

  @nn.compact
  def __call__(self, images, *, train):
    # A bias that a normalisation or softmax takes out again has no gradient but rounding, of which Adam makes steps.
    x = nn.Conv(4, (3, 3), use_bias=not self.normalise)(images)
    if self.normalise:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
    return nn.Dense(self.features, use_bias=self.features > 1)(nn.relu(x))


def make_toy(axis_name: str | None = None, **_) -> nn.Module:
  return Toy(axis_name)


registry.MODELS['toy'] = make_toy


def get_config(variant: str = '') -> ConfigDict:
  """40 steps on simulated stacks of 3 frames, 16 x 16 px; on those of `variant`, a source, if it is given."""
  config = default.smoke(default.get_config())
  config.model = ConfigDict({'name': 'toy'})
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


if __name__ == '__main__':
  from focal_jax.main import run

  run()
