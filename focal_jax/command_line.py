"""What the project's programs have in common: flags, config files among them, and errors that end them in one line."""

import re
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from focal_jax.backend import use_compilation_cache
from focal_jax.errors import InputError, RunError

FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)  # config files are programs


def run_program(main: Callable[[list[str]], int | None], name: str) -> None:
  """Parses the flags, calls `main` with what is left, and exits; what it compiles is kept for the next run.

  An InputError or RunError is printed as one line, after `name`, and its status is the program's; so is whatever is
  wrong with the flags, a config's unknown field too.
  """
  use_compilation_cache()
  try:
    app.run(main, flags_parser=_parse)
  except (InputError, RunError) as error:
    print(f'{name}: error: {error}', file=sys.stderr)
    sys.exit(error.status)


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
    config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
    if config is not None:
      config.to_dict()  # a file that could not be loaded only says so when it is used
      _switch_networks(config)
    return rest
  except FLAG_ERRORS as error:
    raise InputError(flag_message(error)) from None


def _switch_networks(config: ConfigDict) -> None:
  """What `--config.model.depth.name=curves` and the like mean, see `config.switch_networks`."""
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  if any(field.startswith(('model.depth', 'model.align')) for field in overrides):
    from focal_jax.config import switch_networks  # with all networks, which other programs need not wait for

    switch_networks(config, overrides)


def flag_message(error: Exception) -> str:
  """What is wrong with the flags, in one line, from the exception that parsing them raised; config files are programs
  and may raise anything.
  """
  if isinstance(error, KeyError | AttributeError):
    name = re.search(r'\w+', str(error))[0]  # the first quoted; proposals may follow
    return f'--config: no field {name!r}; expected one of those in the config file'
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  if any(line.startswith('Traceback') for line in lines):  # a config file that raised: what it said is at the end
    lines = [f'--config: {lines[-1]}']
  return ' '.join(lines) or repr(error)
