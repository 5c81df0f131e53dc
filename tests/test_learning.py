"""The training step lowers the loss. (A file of its own, so that it is compiled beside `test_train.py`.)"""

import jax
import jax.numpy as jnp
import optax

from focal_jax import parallel
from focal_jax.losses import LossSettings
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.simulate.stacks import SimulatorSettings, simulate_batch
from focal_jax.step import StepSettings, init_state, make_train_step


def test_steps_on_one_batch_lower_its_loss():
  """Thirty steps on one fixed batch."""
  settings = SimulatorSettings(num_frames=3, height_px=32, width_px=32, num_surfaces=4, margin_px=8)
  batch = jax.jit(lambda: simulate_batch(jax.random.split(jax.random.key(1)), settings))()
  tx, step_settings = optax.adam(1e-3), StepSettings('depth', LossSettings())
  devices = parallel.Devices()
  state = devices.replicate(init_state(init_variables(EndToEnd(), 0), tx, step_settings, 0))
  train_step = make_train_step(EndToEnd(axis_name=parallel.AXIS), tx, lambda keys, stack: stack, step_settings)
  step = devices.run(train_step, outputs=(False, False), donate=True)
  share = devices.share(jax.tree.map(lambda x: x[None], (jnp.arange(2), batch)))
  losses = []
  for _ in range(30):
    state, metrics = step(state, share)
    losses.append(float(metrics['depth_loss']))
  assert losses[-1] < 0.5 * losses[0]
