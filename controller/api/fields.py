"""Pure: kinds of fields of the resource, each with its one pattern and bounds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
FEE = r"^([0-9]+wei|[0-9]+(\.[0-9]{1,9})?gwei|[0-9]+(\.[0-9]{1,18})?ether)$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
ADDRESS = r"^0x[0-9a-fA-F]{40}$"
HTTP_URL = r"^https?://[^\s@]+$"
REDIS_URL = r"^rediss?://[^\s@]+$"
HOST_PORT = r"^([^\s:\[\]]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$"
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

MOST_PORT = 65535

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, Field(pattern=DURATION, max_length=32)]
"""Text such as ``15s``, ``250ms`` or ``168h``."""

Fee = Annotated[str, Field(pattern=FEE, max_length=48)]
"""Text such as ``30gwei``, no finer than one wei."""

Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=24)]
"""Kubernetes quantity such as ``1Gi``."""

Address = Annotated[str, Field(pattern=ADDRESS, max_length=42)]
"""20 bytes as ``0x`` and 40 hexadecimal digits."""

Name = Annotated[str, Field(pattern=NAME, min_length=1, max_length=63)]
"""DNS label."""

Path = Annotated[str, Field(pattern=r"^/[^\s]*$", max_length=512)]
"""Absolute path inside the aggregator's container."""


def seconds(duration: str) -> float:
    """Return how long ``1m30s`` is, to the bit as the daemon has it.

    Args:
        duration: Of the form ``DURATION``.
    """
    parts = _DURATION_PART.findall(duration)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


class Part(BaseModel):
    """Base of every model of the resource: camelCase outside, frozen inside.

    What a newer or older schema has besides is ignored: the API server has judged it already.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class SecretKeyRef(Part):
    """One key of a Secret in the resource's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Within the Secret."""


class LocalRef(Part):
    """Something of the resource's namespace, by name."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name."""
