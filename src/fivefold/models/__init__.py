"""Families of classifiers."""
