"""What a developer or CI runs on a checkout. Nothing of it is in the image."""
