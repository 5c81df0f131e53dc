"""The tree of settings: each written once, its reference up to date, and networks chosen on the command line."""

import ast
import dataclasses
from pathlib import Path

import programs
import pytest
from ml_collections import ConfigDict

from configs.baselines import dfv
from focal_jax.config import (
  Config,
  check_fields,
  meanings,
  network,
  reference,
  switch_networks,
  to_config_dict,
)
from focal_jax.errors import InputError
from focal_jax.losses import LossSettings, loss_settings
from focal_jax.models.registry import ALIGN, DEPTH, complete, own_fields, settings_class
from focal_jax.recipes import default, shipped
from focal_jax.simulate.stacks import settings_from_config

ROOT = Path(__file__).parents[1]


def settings_classes(kind=Config):
  yield kind
  for field in dataclasses.fields(kind):
    if dataclasses.is_dataclass(field.type):
      yield from settings_classes(field.type)


def test_a_recipe_begins_with_the_defaults():
  config = default.get_config()
  assert loss_settings(config.loss) == LossSettings()
  assert settings_from_config(config.simulator) == Config().simulator
  assert config.model.to_dict() == complete({})
  assert set(config) == {field.name for field in dataclasses.fields(Config)}
  check_fields(config)
  check_fields(shipped.get_config())


@pytest.mark.parametrize('kind', list(settings_classes()))
def test_every_setting_has_a_meaning(kind):
  assert set(meanings(kind)) == {field.name for field in dataclasses.fields(kind)}
  assert all(len(text) > 5 for text in meanings(kind).values())


NETWORKS = [*(('depth', name) for name in DEPTH), *(('align', name) for name in ALIGN)]


@pytest.mark.parametrize(('section', 'name'), [one for one in NETWORKS if 'toy' not in one])  # which tests add
def test_every_field_of_a_network_has_a_meaning_and_a_default(section, name):
  about = meanings(settings_class(section, name))
  for field in own_fields(section, name).values():
    assert about[field.name]
    assert field.default is not dataclasses.MISSING


def test_the_reference_is_up_to_date():
  # In a separate process, because other tests register networks.
  text = programs.run('-c', 'from focal_jax.config import reference; print(reference(), end="")').stdout
  assert (ROOT / 'docs' / 'configuration.md').read_text() == text, 'make reference'
  for line in ('| `loss.balance` |', '| `simulator.sweep.blur_px` |', "`config.model.depth.name = 'dfv'`"):
    assert line in text
  assert '|  |\n' not in text
  assert reference().startswith('# Settings')


def test_a_field_that_no_setting_has():
  config = to_config_dict()
  config.data.sorce = 'ddff12'
  with pytest.raises(InputError, match=r'no field data\.sorce; data has source, rgbd'):
    check_fields(config)
  config = to_config_dict()
  config.step = 3
  with pytest.raises(InputError, match=r'no field step; a config has seed, model'):
    check_fields(config)


def test_a_section_of_a_network_has_all_its_fields():
  assert network('depth', 'dfv', level=2).to_dict() == {
    'name': 'dfv',
    'differential': True,
    'level': 2,
    'channel_divisor': 1,
  }
  with pytest.raises(InputError, match=r'model\.depth\.level is 2, expected no such field; curves has none'):
    network('depth', 'curves', level=2)


def switched(config: ConfigDict, **overrides) -> dict:
  """The model after the command line set these fields, `__` for dots."""
  overrides = {name.replace('__', '.'): value for name, value in overrides.items()}
  config.update_from_flattened_dict(overrides)
  switch_networks(config, overrides)
  return config.model.to_dict()


def test_the_name_on_the_command_line_gives_that_network():
  config = shipped.get_config()
  expected = config.model.to_dict() | {'depth': network('depth', 'won_jeon').to_dict()}
  assert switched(config, model__depth__name='won_jeon') == expected
  # What the recipe says of its own network goes with it, also a field of the same name.
  config = dfv.get_config('volume')
  config.model.depth.channel_divisor = 4
  model = switched(config, model__depth__name='aifdepthnet', model__align__name='fitted')
  assert model['depth'] == network('depth', 'aifdepthnet').to_dict()
  assert model['align'] == {'name': 'fitted', 'side_px': 0, 'passes': 1}
  # What the command line says stays.
  model = switched(dfv.get_config(), model__depth__name='aifdepthnet', model__depth__channel_divisor=2)
  assert model['depth']['channel_divisor'] == 2
  with pytest.raises(InputError, match=r"model\.depth\.name is 'curve', expected one of won_jeon, curves"):
    switched(default.get_config(), model__depth__name='curve')
  with pytest.raises(InputError, match=r"model\.depth\.detection is 'plane', expected no such field; curves has none"):
    switched(default.get_config(), model__depth__name='curves', model__depth__detection='plane')


PROGRAM = """
from ml_collections import config_flags
from focal_jax.command_line import run_program
config = config_flags.DEFINE_config_file('config')
run_program(lambda argv: print(dict(config.value.model.depth)), 'test')
"""


@pytest.mark.parametrize(
  ('flag', 'expected'),
  [
    ('--config.model.depth.name=curves', {'name': 'curves'}),
    (
      "--config.model.depth={'name': 'dfv', 'level': 2}",
      {'name': 'dfv', 'differential': True, 'level': 2, 'channel_divisor': 1},
    ),
  ],
)
def test_the_command_line(flag, expected):
  done = programs.run('-c', PROGRAM, '--config=configs/simulated.py', flag)
  assert done.returncode == 0, done.stderr
  assert ast.literal_eval(done.stdout) == expected


def test_the_package_imports_no_recipes():
  for path in (ROOT / 'focal_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
      names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
      assert not any(name.partition('.')[0] == 'configs' for name in names), path
