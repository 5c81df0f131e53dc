"""The other networks of the field, by their own recipes as far as those were published."""
