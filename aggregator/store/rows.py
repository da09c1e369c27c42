"""The shared outbox as it is read: every row of it, or it is not read at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aggregator.ports import OutboxUnreadable
from aggregator.store.records import row_key, unpack_row
from aligned.errors import StateDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregator.outbox import OutboxRow

logger = logging.getLogger(__name__)


class Rows:
    """Reads the outbox, and tells when it can not any more and when it can again.

    Args:
        key: Where it is; for the log.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key.decode()
        self.are_readable = True
        """As of the last time."""

    def read(self, values: Iterable[bytes]) -> list[OutboxRow]:
        """Return the rows that are stored as ``values``, ascending by key.

        Raises:
            OutboxUnreadable: One is no row, or none that this release knows.
        """
        try:
            rows = sorted(map(unpack_row, values), key=row_key)
        except StateDamaged as damaged:
            if self.are_readable:
                logger.error(  # noqa: TRY400 - the text says all
                    "this replica cannot lead: the shared outbox holds a row that this release "
                    "cannot read. It goes on taking signatures. If no later release runs beside "
                    "it, remove the row: docs/runbook.md, the shared outbox cannot be read",
                    extra={"key": self._key, "reason": str(damaged)},
                )
            self.are_readable = False
            raise OutboxUnreadable(str(damaged)) from damaged
        if not self.are_readable:
            logger.info("the shared outbox can be read again")
        self.are_readable = True
        return rows
