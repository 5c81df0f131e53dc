"""All networks side by side, in sizes for small budgets, and each behind this project's alignment network.

  python -m focal_jax.sweeps --config=configs/ablations/networks.py --seeds=1 --workdir=runs/networks
  python -m focal_jax.sweeps --config=configs/ablations/networks.py:smoke --seeds=1 --workdir=runs/networks_smoke

Each depth network is trained on the same aligned simulated stacks, for the same number of steps, with the loss of its
authors as far as it applies in units of the focus range. It is then measured, without further training, on stacks with
breathing, drift and shake: without alignment, behind the crop by metadata, and behind the shipped alignment network.
Widths are divided so that each network has about a million parameters; Won and Jeon's has four. Moved frames are
resampled with the Lanczos kernel. The last column shows linear interpolation, which removes noise from all frames but
the last, so that the last one looks sharpest.

In the table 'aligned' is the validation on aligned stacks, the other columns that on moved ones.
"""

from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import ablations, default, shipped

_DFV_LOSS = {
  'loss.pyramid_weights': tuple(weight / 30 for weight in (1, 2, 4, 8)),
  'loss.penalty': 'huber',
  'loss.penalty_scale': 1.0,
  'loss.within_focus': True,
}
# Label -> the section `model.depth`, and the loss.
NETWORKS = {
  'Won and Jeon': ({'name': 'won_jeon'}, {}),
  'curves': ({'name': 'curves'}, {}),
  'refined': ({'name': 'refined'}, {'loss.pyramid_weights': (0.1, 0.15, 0.25, 0.4, 1.0)}),
  'DefocusNet / 2': (
    {'name': 'defocusnet', 'unit': 'focus_range', 'channel_divisor': 2},
    {'loss.pyramid_weights': (1.0,), 'loss.defocus_weight': 1.0},
  ),
  'AiFDepthNet / 4': (
    {'name': 'aifdepthnet', 'channel_divisor': 4},
    {'loss.pyramid_weights': (1.0,), 'loss.penalty': 'absolute'},
  ),
  'FV / 4': ({'name': 'dfv', 'differential': False, 'channel_divisor': 4}, _DFV_LOSS),
  'DFV / 4': ({'name': 'dfv', 'differential': True, 'channel_divisor': 4}, _DFV_LOSS),
}


def get_config(variant: str = '') -> ConfigDict:
  config = shipped.get_config('depth')
  config.model.resampling = 'linear'
  config.model.align = network('align', 'none')
  config.data.simulated_frames = ()
  config.simulator.update(num_frames=6, height_px=64, width_px=64, truth_beyond=0.0)
  config.simulator.scene.anywhere = 0.0
  config.simulator.sweep.aligned = 1.0
  config.loss = default.get_config().loss
  config.optimizer.learning_rate = 5e-4
  config.update(batch_size=4, steps=600, validation_every=600, checkpoint_every=200, ema_decay=0.98)
  return ablations.with_variant(config, variant, 'configs/ablations/networks.py')


def sweep(add) -> None:
  aligner = {'model.align': {'name': 'fitted', 'side_px': 256}}  # like the shipped weights
  moved = {'simulator.sweep.aligned': 0.0, 'simulator.sweep.shake_px': (0.0, 1.5), 'simulator.sweep.zoom': (0.96, 1.1)}
  trained = {
    label: add({'model.depth': depth, **loss}, label=f'{label}, aligned') for label, (depth, loss) in NETWORKS.items()
  }
  for label, (depth, loss) in NETWORKS.items():
    measured = {'model.depth': depth, **loss, **moved, 'steps': 0, 'networks': 'both'}
    measured |= {'init.depth': trained[label].weights}
    sharp = {'model.resampling': 'lanczos', **measured}
    alignment = {**aligner, 'init.alignment': 'weights/simulated.npz'}
    add(sharp, label=f'{label}, as they are')
    add({**sharp, 'model.align': {'name': 'metadata'}}, label=f'{label}, metadata crop')
    add({**sharp, **alignment}, label=f'{label}, alignment network')
    add({**measured, **alignment}, label=f'{label}, alignment network, linear')
