"""Families of classifiers: what each must do, and which there are."""
