"""Image files and annotations to batches of tensors."""
