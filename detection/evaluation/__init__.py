"""Figures of detections against ground truth, by the metrics' own definitions."""
