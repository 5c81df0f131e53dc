r"""The published networks of the model zoo (`focal_jax.load('won_jeon')` ...), trained on the same simulated stacks.

  python -m tfds_ddff.textures --out=textures
  python -m focal_jax.main --config=configs/zoo.py:dfv --workdir=runs/dfv \
    --config.data.textures=folder:textures/train --config.validation_textures=folder:textures/val

The networks are `won_jeon`, `defocusnet`, `aifdepthnet`, `fv` and `dfv`, in the sizes and with the losses of
`configs/ablations/networks.py`; `aifdepthnet_unsupervised` learns from all-in-focus images instead of depth. A quarter
of the weights' stacks were made from RGB-D frames of the ICL-NUIM living room: `--config.data.rgbd=folder:DIR
--config.data.rgbd_share=0.25`. The number of steps is for an accelerator; on a CPU core add `--config.batch_size=4
--config.optimizer.steps_per_update=4`. `weights/README.md` lists what was run.

`NAME_joint` trains a depth network and the alignment network in front of it together, at a low rate, on moving sweeps:

  python -m focal_jax.main --config=configs/zoo.py:won_jeon_joint --workdir=runs/won_jeon_joint \
    --config.data.textures=folder:textures/train --config.validation_textures=folder:textures/val \
    --config.init.depth=weights/won_jeon.npz --config.init.alignment=weights/won_jeon.npz
"""

from focal_jax.recipes.ablations import networks
from focal_jax.recipes.baselines import aifdepthnet
from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import default, shipped

# Name of the weights -> label in `configs/ablations/networks.py`.
VARIANTS = {
  'won_jeon': 'Won and Jeon',
  'defocusnet': 'DefocusNet / 2',
  'aifdepthnet': 'AiFDepthNet / 4',
  'aifdepthnet_unsupervised': 'AiFDepthNet / 4',
  'fv': 'FV / 4',
  'dfv': 'DFV / 4',
}
JOINT = '_joint'  # added to a name


def get_config(variant: str = 'won_jeon') -> ConfigDict:
  name = variant.removesuffix(JOINT)
  if name not in VARIANTS:
    names = ', '.join(VARIANTS)
    raise ValueError(f"unknown network '{name}' of configs/zoo.py, expected one of {names}, with or without {JOINT}")
  depth, loss = networks.NETWORKS[VARIANTS[name]]
  config = shipped.get_config('depth_large')
  config.model.depth = network('depth', **depth)
  if depth['name'] == 'aifdepthnet':
    config.model.depth.normalisation = 'softmax'  # one of its two published settings
  config.loss = default.get_config().loss
  config.update_from_flattened_dict(loss)
  if name == 'aifdepthnet_unsupervised':
    aifdepthnet.learn_without_depth(config)
  config.data.simulated_frames = ()
  # None of these networks reaches beyond the sweep.
  config.simulator.truth_beyond = 0.0
  config.simulator.scene.update(steep=0.4, rough=0.3, patchy=0.3, thin=0.25)
  # These networks pool to 1/32, where crops of 64 px have two cells; networks trained on those failed on real images.
  config.update(batch_size=16, steps=4000)
  config.optimizer.learning_rate = 1e-3 if name == 'won_jeon' else 5e-4
  if variant.endswith(JOINT):
    config.networks = 'both'
    # Motion that the metadata tells, and motion that only the images show; in crops it displaces less than in images.
    config.simulator.margin_px = 24
    config.simulator.sweep.update(cameras=shipped.MOVING, aligned=0.2, no_metadata=0.6, any_zoom=0.5)
    config.simulator.sweep.update(zoom=(0.9, 1.11), shake_px=(0.0, 3.0))
    config.optimizer.learning_rate = 1e-4
    config.steps = 1000
  return config
