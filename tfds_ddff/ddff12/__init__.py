"""DDFF-12: refocused light fields of twelve indoor scenes with registered depth."""
