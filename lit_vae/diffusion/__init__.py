"""Diffusion in continuous time: one clock, the log signal-to-noise ratio, and one state, ``z = alpha x + sigma eps``."""
