"""What is computed differently on different backends, chosen in one place, with the measurements that decided.

Results and parameters do not depend on it. All times are of one machine: two CPU cores, jax 0.10.2, float32.

| what | CPU | elsewhere |
| --- | --- | --- |
| convolutions | 2-D with frames in the batch (`models.conv`) | XLA's own 3-D ones |
| XLA's 2-D convolutions | Eigen's, not YNNPACK's | |
| the warp, not differentiated | two-tap gathers along either axis | two matrix products |

Nothing of it has been measured on GPUs or TPUs yet. What each is worth stands where it is done.
"""

import functools

import jax

# From 0.10 on XLA gives 2-D convolutions on CPUs to YNNPACK, which takes 1.1 to 2.4 times as long as Eigen: 67 against
# 29 ms for 32 -> 48 channels, 3 x 3, on (10, 112, 112); in weight gradients 5 to 10 times. Matrix products stay there.
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}


def on_cpu() -> bool:
  return jax.default_backend() == 'cpu'


@functools.cache
def compiler_options() -> dict[str, str]:
  """For `jax.jit(..., compiler_options=...)`; {} where this version of XLA does not know them."""
  if not on_cpu():
    return {}
  try:
    jax.jit(lambda x: x, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
  except Exception:  # an XLA without YNNPACK, of whatever type
    return {}
  return _CPU_OPTIONS
