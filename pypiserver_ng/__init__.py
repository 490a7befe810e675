"""A private Python package index: it serves, takes uploads, falls back, and shadows."""

__version__ = "0.1.0"
