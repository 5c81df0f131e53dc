"""Other published networks with their own recipes, as far as published."""
