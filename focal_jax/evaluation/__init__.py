"""Evaluation, comparison and submission."""
