"""Training and testing of classification networks; needs Lightning, where `backbones` does not."""
