"""Messages that a broker has given out, read whole."""

from __future__ import annotations

from typing import Any

from switchboard.brokers.decode import entry_of
from switchboard.brokers.message import Delivery
from switchboard.message.journal import Record
from switchboard.message.serializers import Serializers


def read_delivery(
    delivery: Delivery, max_bytes: int | None = None
) -> tuple[Any, dict[str, Any], list[Record]]:
    """:return: the message, its metadata, and its history."""
    entry = entry_of(delivery, max_bytes)
    msg, msgdata = entry.load(Serializers())
    return msg, msgdata, list(entry.records)
