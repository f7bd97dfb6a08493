"""A trained detector on new images."""
