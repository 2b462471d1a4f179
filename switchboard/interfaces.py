"""The contracts, each in one place.  The classes that keep them say only ``See `IName`.``"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from zope.interface import Attribute, Interface


@dataclass(slots=True)
class Taken:
    """An entry that was claimed by :meth:`ISwitchboard.take`.

    ``claim`` is the claim itself, where the queue has such objects: whatever is done with the entry can be done with it, and nothing
    needs to look for it by its name.
    """

    filebase: str
    msg: Any
    msgdata: dict[str, Any]
    claim: Any = None


class ISerializer(Interface):
    """The conversion of messages of one type to bytes, and back.

    A serializer is found by adapting the message: ``serializers.for_message(msg)``.  At dequeue it is found by
    the kind that the entry's header names, if the queue accepts that kind.
    """

    kind = Attribute('The name in the header: lower-case letters, digits and ``. _ + -``.')

    def dumps(msg: Any) -> bytes:
        """Write a message as bytes that :meth:`loads` turns into an equal one.

        :raises UnserializableError: it cannot; the text names the key or the type at fault.
        """

    def loads(body: bytes) -> Any:
        """Read a message.  Never runs anything that the bytes say.

        :raises CorruptEntryError: the bytes are not of this kind.
        """


class ISwitchboard(Interface):
    """One queue.

    An entry is *ready* until somebody dequeues it, *claimed* until it is finished, released or preserved, and *preserved*
    in the bad queue until an operator sends it back.  A claim ends with the process that holds it, and never earlier:
    there is no time-out that could break a slow job.
    """

    name = Attribute('The name of the queue.')
    options = Attribute('Its `QueueOptions`.')
    expiry_clock = Attribute('The time by which messages expire and are given up: an `ExpiryClock`.')
    is_remote = Attribute('Is it on a broker?  Then it has no directory.')

    def enqueue(msg: Any, metadata: Mapping[str, Any] | None = None, **metadata_keys: Any) -> str:
        """Store one message and return its filebase.

        With ``durability = full`` the bytes and the directory entry are on the disk when this returns.  A crash before
        that leaves nothing, a spare that means nothing, or the whole message: never a part of it.  (A power cut before that may leave a
        name whose content is torn: its reader finds that out, and it goes to the bad queue.)

        Some metadata keys have a meaning here: ``order_key`` (entries of one key stay in one slice, in order),
        ``priority`` (0 to 9), ``delay`` (seconds) and ``not_before`` (seconds since the epoch); the last two are used up.

        :param msg: a mail message, bytes, text, or a value that JSON with types holds.
        :param metadata: values of JSON with types by key; keys given by keyword win; the mapping is not changed.
        :return: the entry's filebase, unique for ever.
        :raises TypeError: a keyword is one of those keys, or `metadata`, in other words, such as ``delay_s``; the text names the right one.
        :raises UnserializableError: no serializer holds the message or its metadata; the text names the key or type.
        :raises ContentDisallowedError: the queue does not accept messages of this kind.
        :raises QueueFullError: the queue's limit or the disk's reserve is reached; nothing was stored.
        :raises DurabilityError: a write, sync or rename failed: it counts as not stored; send it again.
        """

    def enqueue_many(messages: Iterable[Any]) -> list[str]:
        """Store many messages with one flush.

        :param messages: an iterable of messages, or of ``(message, metadata)`` tuples.
        :return: their filebases, in the same order.
        :raises QueueError: as for :meth:`enqueue`; those stored before the error stay stored, and are named in
            the error's ``__notes__``.
        """

    def dequeue(filebase: str) -> tuple[Any, dict[str, Any]]:
        """Claim an entry and read it.

        An entry that is torn, or of a kind that is not accepted, is preserved in the bad queue, unread, before the error
        is raised: a loop that goes on to the next one loses nothing.

        :return: ``(msg, msgdata)``; `msgdata` always holds ``version`` and ``_parsemsg``.
        :raises EntryTakenError: somebody else was faster.  Not now; never a sign of damage.
        :raises CorruptEntryError: it was torn, stale or swapped; it is in the bad queue now.
        :raises ContentDisallowedError: its kind is not accepted here; it is in the bad queue now.
        :raises ForeignFileError: the name is not of the grammar, or leads to no regular file; it was left alone.
        """

    def take() -> Taken | None:
        """Claim the next entry that is due, whichever that is.  An unreadable one is preserved, and passed over.

        :return: None if nothing can be had now.
        :raises QueueError: it is not an entry, but the disk or this process that is in trouble.
        """

    def has_ready() -> bool:
        """Look anew: is there anything to :meth:`take`?"""

    def defer(filebase: str, seconds: float) -> None:
        """Do not :meth:`take` an entry for a while, though it is ready; other processes may."""

    def wait_s() -> float | None:
        """:return: seconds until an entry that is there may be taken; None if nothing is waited for."""

    def make_wakeup() -> Any:
        """:return: a new `Wakeup`, to sleep on until there is something to take."""

    def finish(filebase: str, preserve: bool = False, *, reason: str = '', cause: str = 'rejected') -> None:
        """End a claim: the entry is done, or is put into the bad queue.

        An entry that nobody claimed is claimed first.

        :param preserve: keep it in the bad queue, where an operator finds it.
        :param reason: why it is preserved, for its history.
        :param cause: the same in one word, by which dead letters are sorted: ``rejected`` or ``attempts``.
        :raises EntryTakenError: another process holds it, or it is gone.
        """

    def release(filebase: str, *, delay_s: float = 0.0, record: Mapping[str, Any] | None = None) -> str:
        """Give a claimed entry back to its queue.

        :param delay_s: seconds until it is ready again.
        :param record: an addition to its history; an entry released without a record is as if it never was claimed.
        :return: its filebase, which is another one after a delay.
        :raises EntryTakenError: this process does not hold it.
        :raises DurabilityError: the disk does not let it go, or does not take a change of its metadata; it stays claimed.
        """

    def annotate(filebase: str, record: Mapping[str, Any]) -> None:
        """Add a record to the history of an entry that this process holds.

        :raises DurabilityError: it changes the metadata, and the disk does not take it; other records are written if that is possible.
        """

    def history(filebase: str) -> list[Mapping[str, Any]]:
        """:return: the records of an entry's life so far, oldest first."""

    def metadata_changes(filebase: str, msgdata: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
        """Compare metadata with those of an entry that this process holds.

        :param strict: False leaves out values that cannot be stored.
        :return: the fields ``set`` and ``drop`` for a record of its history; empty if nothing is.
        :raises UnserializableError: a new value cannot be stored; the text names the key.
        """

    def is_message_changed(filebase: str, msg: Any) -> bool:
        """Is the message itself different from what an entry that this process holds stores?

        :raises UnserializableError: it is, and cannot be stored any more.
        """

    def recover_backup_files(*, include_own: bool = True) -> None:
        """:meth:`recover` under Mailman's name, which returns nothing."""

    def recover(*, include_own: bool = True, wait: bool = False) -> list[str]:
        """Make the claims of dead processes, and those this process gave up, ready again.

        Each recovery is recorded in the entry; the third sends it to the bad queue, because a message that kills its
        runner must not do so for ever.  What another living process holds is never touched.

        :param include_own: also what this process holds; a runner's periodic recovery leaves that alone.
        :param wait: wait half a second at most for entries that another process may be recovering just then.
        :return: the filebases that are ready again.
        """

    files = Attribute(
        'The filebases that are due, in FIFO order, of this slice only; `NotListableError` for a queue on a broker.'
    )

    def get_files(extension: str = '.pck') -> list[str]:
        """:return: all filebases with this extension, due or not, in FIFO order, of this slice only.

        :raises NotListableError: the queue is on a broker, and it is not those that this process holds (``.bak``).
        """


class IFileStore(Interface):
    """A directory of whole files, with the calls of gocept.filestore.  See `switchboard.filestore`."""

    path = Attribute('Where it is.')
    sub_dirs = Attribute('The names of its directories: tmp, new and cur, and what a subclass adds.')

    def prepare() -> None:
        """Make its missing parts."""

    def create(filename: str | None = None, mode: str = 'w') -> IO[Any]:
        """Open a file in ``tmp``; without a name it gets one that is unique."""

    def move(filename: str, source: str, destination: str) -> None:
        """Move a file from one directory to another, in one step."""

    def copy(filename: str, source: str, destination: str) -> None:
        """Copy a file; the copy appears whole."""

    def remove(filename: str, source: str) -> None:
        """Remove a file from a directory."""

    def list(section: str) -> Sequence[str]:
        """:return: the full paths of the files in a directory, sorted by name."""


class ITransaction(Interface):
    """One input and the outputs made from it: either all of it happens or nothing."""

    has_outputs = Attribute('Does a commit do more than to finish the input?')

    def emit(queue: Any, msg: Any, metadata: dict[str, Any]) -> str:
        """Write a message to be put into `queue` at the commit.

        :param metadata: may be changed.  With a ``dedupe_key`` the message is dropped at the commit if its key is known then.
        :return: its filebase.
        """

    def emit_all(queues: Sequence[Any], msg: Any, metadata: Mapping[str, Any]) -> list[str]:
        """:meth:`emit` to each of these queues or, if an error is raised, to none of them; the metadata are not changed.

        :return: the filebases, in the same order.
        """

    def forward(*queues: Any) -> None:
        """Hand the input on as it is, to each of these queues.

        :raises ContentDisallowedError: a queue does not accept its kind.
        :raises QueueError: a copy could not be stored.
        """

    def keep(msg: Any, msgdata: dict[str, Any]) -> str:
        """Give the input back to its queue, in its place, with its changes; throw the outputs away.

        :return: its filebase: another one if the message itself was changed.
        :raises QueueError: it could not be stored; it stays claimed.
        """

    def commit() -> None:
        """Finish the input and publish the outputs, as one step.

        A crash before leaves the input claimed, for recovery to make ready again, and no output; a crash after it is
        rolled forward by recovery.
        """

    def discard() -> None:
        """Throw the outputs away.  The input stays claimed."""


class ISpool(Interface):
    """All queues of one installation."""

    clock = Attribute('The `Clock` that its queues go by.')
    exchanges = Attribute('The `ExchangeTable`.')

    def __getitem__(name: str) -> ISwitchboard:
        """:return: the queue of that name.

        :raises UnknownQueueError: the configuration does not declare it, or the name cannot be one.
        """

    def __contains__(name: object) -> bool:
        """Is there such a queue, without making it?"""

    def publish(
        msg: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        exchange: str = '',
        routing_key: str = '',
        **metadata_keys: Any,
    ) -> dict[str, str]:
        """Route a message and store a copy in each queue that it is for: in all of them or in none.

        :return: filebases by queue.
        :raises TypeError: as of `ISwitchboard.enqueue`, and of ``routing_key`` in other words.
        :raises NoRouteError: nothing matched, and the exchange has no alternate; nothing was stored.
        """

    def queue(name: str, slice: int | None = None, numslices: int = 1) -> ISwitchboard:
        """:return: a new `ISwitchboard` for one slice of a queue; ``spool[name]`` is the shared one for the whole queue.

        :raises UnknownQueueError: the configuration does not declare it, or the name cannot be one.
        """

    def transaction(queue: Any, filebase: str) -> ITransaction:
        """:return: an `ITransaction` whose input is the claimed entry `filebase` of `queue`."""

    def commit_all(transactions: Sequence[Any]) -> Mapping[Any, Exception]:
        """Commit many transactions with the flushes of one.

        :return: the transactions that were not committed, and why; their inputs are still claimed.
        """

    def recover(*, wait: bool = False) -> int:
        """Finish or undo the transactions of dead processes.

        :param wait: wait for those that other processes are finishing, too, for ten seconds at most.
        :return: how many were dealt with.
        """


class IRunner(Interface):
    """A process's work on one slice of one queue."""

    def dispose(msg: Any, msgdata: dict[str, Any]) -> object:
        """Handle one message.

        :return: ``None`` or ``False``: the message is done; ``True`` keeps it queued; anything else is a failure of the message.
        :raises TemporaryFailure: try again later.
        :raises PermanentFailure: preserve it.
        """

    def run(*, once: bool = False, until_empty: bool = False) -> int:
        """Work until stopped, for one pass, or until the queue is empty.

        :return: the exit code of the process.
        """

    def stop() -> None:
        """Ask the loop to end after the current message.  Safe to call from a signal handler."""
