"""The names that a runner may import, besides those of `switchboard` itself and `switchboard.errors`.

The shipped runners are written with nothing else, so a runner of anybody's can do what they do; whatever else this package holds may move.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.clock import Allowance, Backoff
    from switchboard.config.units import (
        choice,
        count,
        duration_s,
        is_loopback,
        octal,
        optional,
        retry_policy,
        size_bytes,
        truth,
        words,
    )
    from switchboard.events import event
    from switchboard.handoff.publish_many import Outcome, Publication
    from switchboard.installing import needs
    from switchboard.message.mail import lazy_mail, mail_bytes
    from switchboard.message.mail_envelope import split_from_line
    from switchboard.message.naming import HIGHEST_PRIORITY, NS
    from switchboard.message.serializers import Serializers
    from switchboard.message.typed_json import tagged_or_text
    from switchboard.options import RunnerOptions
    from switchboard.regular_file import open_regular
    from switchboard.runner.control_group import ControlGroup, clear_groups, delegated_group
    from switchboard.runner.settings import Setting, read_secret
    from switchboard.runner.template import Template
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
    'choice',
    'clear_groups',
    'count',
    'delegated_group',
    'duration_s',
    'event',
    'is_loopback',
    'lazy_mail',
    'mail_bytes',
    'needs',
    'octal',
    'open_regular',
    'optional',
    'read_secret',
    'retry_policy',
    'size_bytes',
    'split_from_line',
    'tagged_or_text',
    'truth',
    'words',
]

# Looked up when they are first asked for: a runner pays for what it uses.
__getattr__ = lazy(
    __name__,
    {
        'Allowance': 'switchboard.clock',
        'BAD': 'switchboard.store.layout',
        'Backoff': 'switchboard.clock',
        'ControlGroup': 'switchboard.runner.control_group',
        'clear_groups': 'switchboard.runner.control_group',
        'delegated_group': 'switchboard.runner.control_group',
        'HIGHEST_PRIORITY': 'switchboard.message.naming',
        'NS': 'switchboard.message.naming',
        'Outcome': 'switchboard.handoff.publish_many',
        'Publication': 'switchboard.handoff.publish_many',
        'RunnerOptions': 'switchboard.options',
        'Serializers': 'switchboard.message.serializers',
        'Setting': 'switchboard.runner.settings',
        'Template': 'switchboard.runner.template',
        'choice': 'switchboard.config.units',
        'count': 'switchboard.config.units',
        'duration_s': 'switchboard.config.units',
        'event': 'switchboard.events',
        'is_loopback': 'switchboard.config.units',
        'lazy_mail': 'switchboard.message.mail',
        'mail_bytes': 'switchboard.message.mail',
        'needs': 'switchboard.installing',
        'octal': 'switchboard.config.units',
        'open_regular': 'switchboard.regular_file',
        'optional': 'switchboard.config.units',
        'read_secret': 'switchboard.runner.settings',
        'retry_policy': 'switchboard.config.units',
        'size_bytes': 'switchboard.config.units',
        'split_from_line': 'switchboard.message.mail_envelope',
        'tagged_or_text': 'switchboard.message.typed_json',
        'truth': 'switchboard.config.units',
        'words': 'switchboard.config.units',
    },
)
