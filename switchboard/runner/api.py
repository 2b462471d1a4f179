"""The names that a runner may import, besides those of `switchboard` itself and `switchboard.errors`.

The shipped runners are written with nothing else, but for those that start a room of this package (``bridge``: the brokers, ``metrics`` and ``web``:
the faces of these names), so a runner of anybody's can do what they do; whatever else this package holds may move.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.clock import Allowance, Backoff
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
    from switchboard.events import event, refusal_level
    from switchboard.handoff.publish_many import Outcome, Publication
    from switchboard.installing import needs
    from switchboard.message.mail import lazy_mail, mail_bytes
    from switchboard.message.mail_envelope import split_from_line
    from switchboard.message.naming import HIGHEST_PRIORITY, NS
    from switchboard.message.serializers import Serializers
    from switchboard.message.typed_json import tagged_or_text
    from switchboard.options import RunnerOptions
    from switchboard.regular_file import open_regular
    from switchboard.runner.control_group import ControlGroup, delegated_cgroup, remove_empty_cgroups
    from switchboard.runner.settings import Setting, read_secret
    from switchboard.runner.template import Template
    from switchboard.runner.unix_socket import listen_at
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
    'NS',
    'Allowance',
    'Backoff',
    'ControlGroup',
    'Outcome',
    'Publication',
    'RunnerOptions',
    'Serializers',
    'Setting',
    'Template',
    'boolean',
    'choice',
    'delegated_cgroup',
    'duration_s',
    'event',
    'file_mode',
    'integer',
    'is_loopback',
    'lazy_mail',
    'listen_at',
    'mail_bytes',
    'needs',
    'open_regular',
    'optional',
    'process_children',
    'process_environment',
    'process_has_ended',
    'process_name',
    'process_stat',
    'read_secret',
    'refusal_level',
    'remove_empty_cgroups',
    'retry_policy',
    'signal_name',
    'size_bytes',
    'split_from_line',
    'tagged_or_text',
    'word_list',
]

# Looked up when they are first asked for: a runner pays for what it uses.
__getattr__ = lazy(
    __name__,
    {
        'switchboard.clock': 'Allowance Backoff',
        'switchboard.config.units': 'boolean choice duration_s file_mode integer is_loopback optional retry_policy size_bytes word_list',
        'switchboard.events': 'event refusal_level',
        'switchboard.handoff.publish_many': 'Outcome Publication',
        'switchboard.installing': 'needs',
        'switchboard.message.mail': 'lazy_mail mail_bytes',
        'switchboard.message.mail_envelope': 'split_from_line',
        'switchboard.message.naming': 'HIGHEST_PRIORITY NS',
        'switchboard.message.serializers': 'Serializers',
        'switchboard.message.typed_json': 'tagged_or_text',
        'switchboard.options': 'RunnerOptions',
        'switchboard.regular_file': 'open_regular',
        'switchboard.runner.control_group': 'ControlGroup remove_empty_cgroups delegated_cgroup',
        'switchboard.runner.settings': 'Setting read_secret',
        'switchboard.runner.template': 'Template',
        'switchboard.runner.unix_socket': 'listen_at',
        'switchboard.status.processes': 'process_children process_environment process_has_ended process_name signal_name process_stat',
        'switchboard.store.layout': 'BAD',
    },
)
