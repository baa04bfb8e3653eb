"""Ends of a run that are nobody's bug."""


class TrainingStopped(ValueError):
    """Training was stopped on purpose, and the message says why and what to do: ``lightning`` shows it alone."""
