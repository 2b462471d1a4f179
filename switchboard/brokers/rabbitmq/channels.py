"""Channels of RabbitMQ, each gone for good as soon as the broker closes it.

py-amqp reuses the number of a channel after the broker's Channel.Close, and opens it again without its consumers, confirms and unacknowledged
deliveries: all of them are lost silently.  Here a channel that the broker closed is gone, and its number is free.  A refused call raises
`amqp.ChannelError`.  A channel that the broker closes of its own accord, as when a job takes longer than ``consumer_timeout``, counts as the end of
the connection: another one is made, and all that the old one held is the broker's again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from amqp import spec
from amqp.exceptions import ChannelError, RecoverableConnectionError, error_for_code

# The calls whose caller waits for an answer.
_CALLS = frozenset(
    (
        spec.Exchange.Declare,
        spec.Queue.Declare,
        spec.Queue.Bind,
        spec.Queue.Delete,
        spec.Basic.Consume,
        spec.Basic.Get,
        spec.Basic.Publish,
    )
)


def _closed(channel: Any, code: int, text: str, class_id: int, method_id: int) -> None:
    """Deal with a channel that the broker has closed."""
    channel.send_method(spec.Channel.CloseOk)
    if channel.is_closing:
        return  # by ourselves, too: the answer to that comes yet
    channel.collect()
    if (class_id, method_id) in _CALLS:
        raise error_for_code(code, text, (class_id, method_id), ChannelError)
    raise RecoverableConnectionError(f'the broker has closed a channel: {text}')


def new_channel(connection: Any) -> Any:
    """Open a channel."""
    channel = connection.channel()
    channel.auto_decode = False
    channel._callbacks[spec.Channel.Close] = partial(_closed, channel)
    return channel
