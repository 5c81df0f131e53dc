"""Other published networks, with their own recipes as far as those were published."""
