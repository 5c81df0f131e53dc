"""What differs between the platforms that programs are compiled for; where what was compiled is kept; and pages of
memory.

Results and parameters do not depend on it. All times are of one machine: two CPU cores, jax 0.10.2, float32.

| what | CPU | TPU | elsewhere |
| --- | --- | --- | --- |
| convolutions (`models.conv.FORM_ON`) | 2-D, frames in the batch | 3-D, columns in the channels | XLA's own 3-D |
| XLA's 2-D convolutions | Eigen's, not YNNPACK's | | |
| the warp and its derivatives (`interpolation`) | gathers along either axis | matrix products | the same |

Convolutions and warp are decided when a program is lowered, by the platform that it is lowered for and not by the one
that it is lowered on: what is exported on a CPU has another form on each platform. What each is worth stands where it
is done.
"""

import ctypes
import functools
import hashlib
import os
import platform
from pathlib import Path

import jax

# From 0.10 on XLA gives 2-D convolutions on CPUs to YNNPACK, which takes 1.1 to 2.4 times as long as Eigen: 67 against
# 29 ms for 32 -> 48 channels, 3 x 3, on (10, 112, 112); in weight gradients 5 to 10 times. Matrix products stay there.
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}
_HUGE_PAGES = '/sys/kernel/mm/transparent_hugepage/enabled'


def default_platform() -> str:
  """Of what is compiled with no word about a device: 'cpu', 'gpu', 'tpu', as JAX calls them.

  `jax.default_device` has the first word.
  """
  device = jax.config.jax_default_device
  return jax.default_backend() if device is None else getattr(device, 'platform', device)


def compiler_options(platform: str | None = None) -> dict[str, str]:
  """For `jax.jit(..., compiler_options=...)`; {} where this version of XLA does not know them.

  Args:
    platform: that is compiled for; None: the default one.
  """
  return _known_options() if (platform or default_platform()) == 'cpu' else {}


@functools.cache
def _known_options() -> dict[str, str]:
  try:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      jax.jit(lambda x: x, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
  except Exception:  # an XLA without YNNPACK, of whatever type
    return {}
  return _CPU_OPTIONS


def use_compilation_cache() -> Path | None:
  """What a program compiles is kept for its next run, in a folder of the user's; every program of the project does so.

  `JAX_COMPILATION_CACHE_DIR` chooses another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns it off; what JAX was
  told before stays as it is. Deleting the folder is safe at any time.

  Returns:
    The folder; None where there is none, because it is turned off or cannot be made.
  """
  if not jax.config.jax_enable_compilation_cache:
    return None
  if jax.config.jax_compilation_cache_dir:
    return Path(jax.config.jax_compilation_cache_dir)
  try:
    folder = _user_cache() / 'focal_jax' / f'jax-{jax.__version__}-{_processor()}'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # a home that cannot be written to, or none: every run compiles
    return None
  jax.config.update('jax_compilation_cache_dir', str(folder))
  return folder


def release_memory() -> None:
  """Gives memory that was freed back to the system: compiling a network leaves half a gigabyte of small pieces, which
  glibc's allocator would keep beside what running it takes. Does nothing where the allocator is another one.
  """
  try:
    ctypes.CDLL(None).malloc_trim(0)
  except (AttributeError, OSError, TypeError):
    return


def huge_pages_hint() -> str | None:
  """How to get memory in huge pages, in one line; None where it is so already, cannot be, or was decided against.

  XLA gets a training step's memory anew each time, and on two CPU cores 450,000 pages of 4 kB that have to be cleared
  first make it take 1.25 times as long. The C library reads what it is to do when a program starts, so only who starts
  the program can say it.
  """
  if 'glibc.malloc.hugetlb' in os.environ.get('GLIBC_TUNABLES', '') or not _huge_pages_on_request(Path(_HUGE_PAGES)):
    return None
  return 'a step takes less time with memory in huge pages: start with GLIBC_TUNABLES=glibc.malloc.hugetlb=1'


def _huge_pages_on_request(setting: Path) -> bool:
  """Whether Linux gives huge pages to those who ask, and the C library (glibc 2.35) can."""
  name, version = platform.libc_ver()
  try:
    return name == 'glibc' and tuple(map(int, version.split('.'))) >= (2, 35) and '[madvise]' in setting.read_text()
  except (OSError, ValueError):
    return False


def _user_cache() -> Path:
  """Where programs keep what they can make again (XDG Base Directory Specification)."""
  given = os.environ.get('XDG_CACHE_HOME', '')
  return Path(given) if Path(given).is_absolute() else Path.home() / '.cache'


def _processor() -> str:
  """Which instructions it knows: a home may be shared by machines, and code for one of them can end in a crash on
  another.
  """
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    flags = next(line for line in lines if line.lower().startswith(('flags', 'features')))
  except (OSError, StopIteration):
    flags = platform.processor()
  return f'{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}'
