"""The names that a runner may import, besides those of `switchboard` itself and `switchboard.errors`.

The shipped runners are written with nothing else, but for those that start a room of this package (``bridge``: the brokers, ``metrics`` and ``web``:
the faces of these names), so a runner of anybody's can do what they do; whatever else this package holds may move.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.clock import Backoff, TimeLimit
    from switchboard.config.units import (
        boolean,
        choice,
        duration_s,
        file_mode,
        integer,
        is_loopback,
        optional,
        retry_policy,
        size_bytes,
        word_list,
    )
    from switchboard.events import log_event, refusal_log_level
    from switchboard.handoff.publish_many import Publication, PublishOutcome
    from switchboard.installing import install_advice
    from switchboard.message.mail import mail_bytes, mail_from_bytes
    from switchboard.message.mail_envelope import split_from_line
    from switchboard.message.naming import HIGHEST_PRIORITY, NS_PER_S
    from switchboard.message.serializers import Serializers
    from switchboard.message.typed_json import plain_json
    from switchboard.options import RunnerOptions
    from switchboard.regular_file import open_regular_file
    from switchboard.runner.control_group import ControlGroup, delegated_cgroup, remove_empty_cgroups
    from switchboard.runner.settings import Setting, read_secret
    from switchboard.runner.template import Template
    from switchboard.runner.unix_socket import listen_at_unix_socket
    from switchboard.status.processes import (
        process_children,
        process_environment,
        process_has_ended,
        process_name,
        process_stat,
        signal_name,
    )
    from switchboard.store.layout import BAD

__all__ = [
    'BAD',
    'HIGHEST_PRIORITY',
    'NS_PER_S',
    'Backoff',
    'ControlGroup',
    'Publication',
    'PublishOutcome',
    'RunnerOptions',
    'Serializers',
    'Setting',
    'Template',
    'TimeLimit',
    'boolean',
    'choice',
    'delegated_cgroup',
    'duration_s',
    'file_mode',
    'install_advice',
    'integer',
    'is_loopback',
    'listen_at_unix_socket',
    'log_event',
    'mail_bytes',
    'mail_from_bytes',
    'open_regular_file',
    'optional',
    'plain_json',
    'process_children',
    'process_environment',
    'process_has_ended',
    'process_name',
    'process_stat',
    'read_secret',
    'refusal_log_level',
    'remove_empty_cgroups',
    'retry_policy',
    'signal_name',
    'size_bytes',
    'split_from_line',
    'word_list',
]

# Looked up when they are first asked for: a runner pays for what it uses.
__getattr__ = lazy(
    __name__,
    {
        'switchboard.clock': 'TimeLimit Backoff',
        'switchboard.config.units': 'boolean choice duration_s file_mode integer is_loopback optional retry_policy size_bytes word_list',
        'switchboard.events': 'log_event refusal_log_level',
        'switchboard.handoff.publish_many': 'PublishOutcome Publication',
        'switchboard.installing': 'install_advice',
        'switchboard.message.mail': 'mail_from_bytes mail_bytes',
        'switchboard.message.mail_envelope': 'split_from_line',
        'switchboard.message.naming': 'HIGHEST_PRIORITY NS_PER_S',
        'switchboard.message.serializers': 'Serializers',
        'switchboard.message.typed_json': 'plain_json',
        'switchboard.options': 'RunnerOptions',
        'switchboard.regular_file': 'open_regular_file',
        'switchboard.runner.control_group': 'ControlGroup remove_empty_cgroups delegated_cgroup',
        'switchboard.runner.settings': 'Setting read_secret',
        'switchboard.runner.template': 'Template',
        'switchboard.runner.unix_socket': 'listen_at_unix_socket',
        'switchboard.status.processes': 'process_children process_environment process_has_ended process_name signal_name process_stat',
        'switchboard.store.layout': 'BAD',
    },
)
