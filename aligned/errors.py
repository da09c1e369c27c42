"""What can go wrong, by who must act.

::

    AlignedError
    ├── BadConfiguration      the person who wrote the configuration
    ├── MalformedMessage      the peer: its connection is closed
    ├── Refused               the operator: never right as sent, reply 1
    ├── Unavailable           nobody yet: not now; callers hold or retry
    │   ├── ChainUnavailable      no endpoint answers
    │   └── StoreUnavailable      the shared store does not confirm
    ├── StateDamaged          the person on call: the state on disk cannot be used; says what to do
    ├── DiskRefused           the person on call: the disk is full or fails; the state is as it was
    ├── StateMismatch         the person on call: state of another deployment or version
    └── Deposed               another leader's term began: leader's work ends here

Anything else is a bug and ends the process.
"""

from __future__ import annotations


class AlignedError(Exception):
    """Root of this project's errors."""


class BadConfiguration(AlignedError):
    """The configuration cannot be used.

    Attributes:
        problems: One line each, beginning with a key's path, e.g. ``chain.endpoints[0].url``.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class MalformedMessage(AlignedError):
    """Bytes that the protocol does not allow; the connection they came over is finished."""


class Refused(AlignedError):
    """A response that will never be right as sent."""


class Unavailable(AlignedError):
    """Something outside does not answer now."""


class ChainUnavailable(Unavailable):
    """No Ethereum endpoint gave an answer within its deadline."""


class StoreUnavailable(Unavailable):
    """The shared store did not confirm a write."""


class StateDamaged(AlignedError):
    """State that is not as it was written; the message says what to do."""


class DiskRefused(AlignedError):
    """A disk that is full or fails: the state on it is no worse than before; says what to do."""


class StateMismatch(AlignedError):
    """State that belongs to another deployment, or was marked as moved; says what to do."""


class Deposed(AlignedError):
    """A write of a term that is over was refused."""
