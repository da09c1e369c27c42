"""What goes wrong, by who must act.

::

    InvalidSpec        the user: the resource says something that cannot be
    ClusterError       what the API server said
    ├── ClusterAway    nobody: no answer, 5xx, 429; try again later
    ├── Conflict       nobody: it changed meanwhile, or exists already; read again
    ├── Gone           nobody: it does not exist
    └── Refused        the user or whoever installed us: 400, 403, 422
"""

from __future__ import annotations


class InvalidSpec(ValueError):
    """The resource cannot be run as it is.

    Attributes:
        problems: One sentence each, with the path of the field.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ClusterError(Exception):
    """The API server did not do what it was asked to."""


class ClusterAway(ClusterError):
    """No answer in time, no connection, 5xx or 429.

    Attributes:
        retry_after: Seconds that the API server asked us to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(ClusterError):
    """409: it is another one than was thought, or one of that name exists."""


class Gone(ClusterError):
    """404."""


class Refused(ClusterError):
    """400, 403 or 422: it will not do this, however often it is asked.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
