"""What this project costs and saves, measured against the plain alternative: ``python -m benchmarks --help``."""
