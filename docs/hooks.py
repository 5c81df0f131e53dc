"""Changes to the site that mkdocs.yml and stylesheets cannot make."""

import re


def on_page_content(html: str, **_) -> str:
  """Browsers break lines behind the dashes of a flag; the class `flag` keeps its first letter beside them."""
  return re.sub(r'<code>[^<]*</code>', lambda code: re.sub(r'--\w', r'<span class="flag">\g<0></span>', code[0]), html)
