"""A run and its directory: configuration, numbers, checkpoints, pictures, and what makes it resume exactly."""
