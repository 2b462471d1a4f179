"""Metrics as text: what Prometheus reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from switchboard.metrics.collector import Collector
from switchboard.metrics.counting import Count

if TYPE_CHECKING:
    from switchboard.config.config import Config


def render(
    directory: Path,
    count: Count,
    config: Config | None = None,
    *,
    errors: int = 0,
    accept: str = '',
) -> tuple[bytes, str]:
    """Render all metrics of a spool.  The directories of its queues are not looked into.

    :param count: the last count of the queues (see `counting`); an empty one, if there was none yet.
    :param errors: how often this exporter could not count or read before.
    :param accept: the header of that name of the request.
    :return: the text, and its ``Content-Type``.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(directory, count, config, errors))
    return encode(registry), content_type
