"""Is it better to train end to end, or each network separately?

  python -m focal_jax.sweeps --config=configs/ablations/stages.py --workdir=runs/stages
  python -m focal_jax.sweeps --config=configs/ablations/stages.py:smoke --seeds=1 --workdir=runs/stages_smoke

Three variants with the same total number of steps: end to end; alignment and depth network separately, the latter on
aligned stacks, half of the steps each, then joined; and separately for a quarter each, then joined and trained end to
end. A step of one network costs less than one of both.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  return ablations.recipe(variant, 'configs/ablations/stages.py')


def sweep(add) -> None:
  steps = add.config.steps

  def alone(alignment_steps, depth_steps):
    """Settings that join the two networks, each trained separately."""
    alignment = add(networks='alignment', best_metric='motion_px', steps=alignment_steps, report=False)
    depth = add({'networks': 'depth', 'simulator.sweep.aligned': 1.0, 'steps': depth_steps}, report=False)
    return {'init.alignment': alignment.weights, 'init.depth': depth.weights}

  add(label='end to end')
  add(alone(steps // 2, steps - steps // 2), steps=0, label='two stages')
  add(alone(steps // 4, steps // 4), steps=steps - 2 * (steps // 4), label='two stages, then end to end')
