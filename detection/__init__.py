"""Faster R-CNN: model, data, training, evaluation and inference."""
