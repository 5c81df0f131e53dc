"""Does alignment matter, and which part of it: frames as they are, the crop that the metadata tell, or that and the
alignment network?

  python -m focal_jax.sweeps --config=configs/ablations/alignment.py --workdir=runs/alignment
  python -m focal_jax.sweeps --config=configs/ablations/alignment.py:smoke --seeds=1 --workdir=runs/alignment_smoke

End to end, on stacks that breathe and drift. The motion error of `none` is that of frames that are not moved.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  return ablations.recipe(variant, 'configs/ablations/alignment.py')


def sweep(add) -> None:
  add({'model.align': {'name': 'none'}}, label='none')
  add({'model.align': {'name': 'metadata'}}, label='metadata crop only')
  add({'model.align': {'name': 'learned'}}, label='metadata crop and network')
