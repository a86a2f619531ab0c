"""A clock that a test sets."""


class Clock:
    """Takes the place of the module ``time``, or gives :func:`time.monotonic`.

    Args:
        now: Seconds that it shows first.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now
