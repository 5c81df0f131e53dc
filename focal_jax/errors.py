"""The one exception that means: something the user gave us is wrong."""


class InputError(ValueError):
  """Bad input. The message is one line: the file or field, what was found, what was expected.

  The command line prints it without a traceback and exits with status 2; library users may catch it as a `ValueError`.
  """
