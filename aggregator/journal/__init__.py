"""What this replica keeps on its own disk: the file that makes an acknowledgement a promise.

::

    format.py    pure: schema, packing, checksums
    content.py   statements over an open file, inside somebody's transaction
    reading.py   file -> everything a start needs
    opening.py   edge: checks and locks before a file is used
    writer.py    edge: the one thread that writes; groups share an fsync
    journal.py   the asyncio side: what the daemon calls
    portable.py  pure: the exported form
    inspect.py   commands: summary, export, import
"""

from __future__ import annotations
