"""Detectors as Lightning trains them."""
