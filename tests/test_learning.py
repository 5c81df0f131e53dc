"""The training step lowers the loss. (A file of its own, so that it is compiled beside `test_train.py`.)"""

import jax
import jax.numpy as jnp
import optax

from focal_jax import parallel
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.simulate.stacks import SimulatorSettings, simulate_batch


def test_steps_on_one_batch_lower_its_loss():
  """Thirty steps on one fixed batch."""
  settings = SimulatorSettings(num_frames=3, height_px=32, width_px=32, num_surfaces=4, margin_px=8)
  batch = jax.jit(lambda: simulate_batch(jax.random.key(1), 2, settings))()
  tx = optax.adam(1e-3)
  state = parallel.init_state(init_variables(EndToEnd(), 0), tx)
  step = parallel.make_train_step(
    EndToEnd(axis_name=parallel.AXIS), tx, lambda key, inputs: inputs, 0, (0.3, 0.5, 0.7, 1.0), 0.0, 'depth'
  )
  inputs = jax.tree.map(lambda x: jnp.asarray(x)[None], batch)
  losses = []
  for _ in range(30):
    state, metrics = step(state, inputs)
    losses.append(float(metrics['depth_loss']))
  assert losses[-1] < 0.5 * losses[0]
