"""Does alignment matter, and which part of it: none, the crop by metadata, or both crop and alignment network?

  python -m focal_jax.sweeps --config=configs/ablations/alignment.py --workdir=runs/alignment
  python -m focal_jax.sweeps --config=configs/ablations/alignment.py:smoke --seeds=1 --workdir=runs/alignment_smoke

End to end, on stacks that breathe and drift. The motion error of `none` is that of unmoved frames.
The depth network of the variant `:small` starts from the weights of the model zoo.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/alignment.py')
  if variant == 'small':
    ablations.from_trained(config, steps=200)
  return config


def sweep(add) -> None:
  add({'model.align': {'name': 'none'}}, label='none')
  add({'model.align': {'name': 'metadata'}}, label='metadata crop only')
  add({'model.align': {'name': 'learned'}}, label='metadata crop and network')
