"""Recipes and models, composed by `resdet train --config RECIPE --config MODEL`."""
