"""The selection of programs, and the tables.

With `-m aot` also that programs compile for a v5e and fit: needs libtpu (`pip install "jax[tpu]"`) and takes minutes.
"""

import importlib.util
import json
import subprocess
import sys

import pytest

from benchmarks import aot
from focal_jax.files.shipped import shipped_file
from focal_jax.models.npz_file import load_weights


def asked(*flags):
  aot.FLAGS.unparse_flags()
  for name in aot.FLAGS:
    aot.FLAGS[name].unparse()
  aot.FLAGS(['aot', *flags])


def test_programs_by_default_and_on_fewer_chips():
  asked()
  programs = list(aot.cases(4))
  assert len(set(programs)) == len(programs)
  assert {case.part for case in programs} == set(aot.PARTS)
  assert {case.name for case in programs if case.part == 'predict'} >= {'won_jeon', 'dfv', 'refined'}
  assert {case.chips for case in programs if case.part == 'train'} == {1, 4}  # not 8
  asked('--only=train', '--trained=depth', '--stacks=2', '--parallel=pmap', '--dtype=bfloat16')
  assert [(case.chips, case.stacks, case.dtype) for case in aot.cases(1)] == [(1, 2, 'bfloat16')]


def test_refined_is_the_network_of_the_shipped_weights():
  config = aot.training_config(aot.Case('train', 'refined', chips=4, stacks=2, dtype='bfloat16', remat=True))
  _, description = load_weights(shipped_file('weights/simulated.npz'))
  assert config.model.depth.to_dict() == description['model']['depth']
  assert (config.networks, config.batch_size, config.compute_dtype, config.remat) == ('depth', 8, 'bfloat16', True)
  assert len(config.loss.pyramid_weights) == 5  # its depth maps


def test_memory_and_table():
  row = {'temp_bytes': 5 << 30, 'argument_bytes': 3 << 30, 'output_bytes': 2 << 30, 'alias_bytes': 2 << 30}
  row |= {'generated_code_bytes': 0, 'device': 'TPU v5 lite', 'cycles': 63_500_000, 'flops': None, 'bytes': 2.1e10}
  made = {'versions': 'jax 1', 'date': '2026-11-30'}
  row |= {'all_reduces': 134, 'all_reduce_bytes': 16_900_000, 'compile_s': 61.0, **made}
  assert aot.needed_bytes(row) == 8 << 30
  row['stored'] = {'depth/stem': [2_000_000, 7_000_000], 'depth/head': [5_000_000, 5_000_000]}
  rows = [row | {'case': vars(aot.Case('train', 'both', chips=4))}]
  rows.append({'case': vars(aot.Case('train', 'depth')), 'does_not_fit': '18G of 15G hbm', **made})
  text = aot.markdown({'topology': 'v5e:2x2', 'rows': rows})
  assert 'compiled, not run' in text.lower()
  assert '| 8.00 | 51% | 5.00 | 63.5 |  | 21.0 | 134, 16.9 MB | 61.0 | jax 1 | 2026-11-30 |' in text
  assert '| does not fit: 18G of 15G hbm |' in text
  assert '| 0.00700 | 0.0120 | depth/stem: 2 / 7, depth/head: 5 / 5 |' in text


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='there is a compiler')
def test_without_a_compiler_the_package_is_named():
  done = subprocess.run([sys.executable, '-m', 'benchmarks.aot'], capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].endswith(
    'no compiler for --platform=tpu here, expected the package: pip install "jax[tpu]"'
  )


@pytest.mark.aot
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu: pip install "jax[tpu]"')
@pytest.mark.parametrize(
  'flags',
  [
    ('--only=predict', '--networks=won_jeon', '--sizes=224x224'),
    ('--only=train', '--trained=both', '--chips=4', '--stacks=1', '--parallel=shard_map'),
    ('--only=train', '--trained=refined', '--chips=1', '--stacks=1', '--parallel=shard_map'),
  ],
)
def test_compiles_for_a_v5e_and_fits(tmp_path, flags):
  command = [sys.executable, '-m', 'benchmarks.aot', '--level=O0', f'--out={tmp_path}', *flags]
  subprocess.run(command, check=True)
  (row,) = json.loads((tmp_path / 'v5e_2x2.json').read_text())['rows']
  assert aot.needed_bytes(row) < aot.MEMORY_GIB[row['device']] * 2**30, row
