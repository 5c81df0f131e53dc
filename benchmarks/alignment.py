"""Error of the estimated motion on simulated sweeps, by the side that frames are reduced to first.

python -m benchmarks.alignment --weights=weights/simulated.npz --size=256 --sides=64,96,128,256

Root mean square displacement error over the image, in px of the full frames, averaged over frames and stacks; "none" is
the error of taking no motion beside the metadata's field of view.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from focal_jax import losses
from focal_jax.models.npz_file import load_weights
from focal_jax.models.registry import make_model
from focal_jax.simulate.cameras import SweepSettings
from focal_jax.simulate.stacks import SimulatorSettings, simulate_batch

_WEIGHTS = flags.DEFINE_string('weights', 'weights/simulated.npz', 'Weights file.')
_SIZE = flags.DEFINE_integer('size', 256, 'Height and width of the simulated frames, px.')
_SIDES = flags.DEFINE_list('sides', ['64', '96', '128', '256'], 'Sides that frames are reduced to, px.')
_STACKS = flags.DEFINE_integer('stacks', 12, 'Stacks.')


def main(argv: list[str]) -> None:
  del argv
  variables, description = load_weights(_WEIGHTS.value)
  scale = _SIZE.value / 64
  sweep = SweepSettings(aligned=0.0, shake_px=(0.0, scale), blur_px=(0.8 * scale, 7.0))
  settings = SimulatorSettings(8, _SIZE.value, _SIZE.value, num_surfaces=16, margin_px=32, sweep=sweep)
  simulate = jax.jit(lambda key: simulate_batch(key[None], settings))
  stacks = [simulate(jax.random.fold_in(jax.random.key(11), i)) for i in range(_STACKS.value)]
  size = (_SIZE.value, _SIZE.value)

  def mean_error(estimate):
    return np.mean([losses.motion_error(estimate(stack), stack.motion, *size).mean() for stack in stacks])

  print('| side, px | error, px |\n| ---: | ---: |')
  print(f'| none | {mean_error(lambda stack: jnp.zeros_like(stack.motion)):.3f} |')
  for side in map(int, _SIDES.value):
    network = make_model(description['model'], description['arguments'] | {'motion_side_px': side})
    estimate = jax.jit(lambda stack, network=network: network.apply(variables, stack, method='estimate_motion'))
    print(f'| {side} | {mean_error(estimate):.3f} |')


if __name__ == '__main__':
  app.run(main)
