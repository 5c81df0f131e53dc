"""What the modes evaluate, compare and submit are made of."""
