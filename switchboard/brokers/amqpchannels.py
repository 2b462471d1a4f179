"""A channel of RabbitMQ's that is closed when the broker has closed it.

py-amqp opens such a channel again, at once and without a word: under the same number, and without the consumers, the confirms and the
messages that it had.  Who goes on with it waits for what never comes, and acknowledges what is another's.  Here it is gone, and
its number is free.

What is refused of a call is said to the caller (`amqp.exceptions.ChannelError`).  What the broker does of its own accord, as when a job
takes longer than ``consumer_timeout``, counts as the end of the connection: the link makes another one, and knows that all it held
is the broker's again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from amqp import spec
from amqp.exceptions import ChannelError, RecoverableConnectionError, error_for_code

# What we call, and somebody waits to hear of.
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


def open_channel(connection: Any) -> Any:
    """:return: a new channel."""
    channel = connection.channel()
    channel.auto_decode = False
    channel._callbacks[spec.Channel.Close] = partial(_closed, channel)
    return channel


def _closed(channel: Any, code: int, text: str, class_id: int, method_id: int) -> None:
    """Hear that the broker has closed a channel."""
    channel.send_method(spec.Channel.CloseOk)
    if channel.is_closing:
        return  # by ourselves, too: the answer to that comes yet
    channel.collect()
    if (class_id, method_id) in _CALLS:
        raise error_for_code(code, text, (class_id, method_id), ChannelError)
    raise RecoverableConnectionError(f'the broker has closed a channel: {text}')
