"""The subjects of `resdet benchmark`, one file each."""
