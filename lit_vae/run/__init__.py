"""A run and its directory: configuration, numbers, checkpoints, pictures, and what makes a resumed run go on exactly."""
