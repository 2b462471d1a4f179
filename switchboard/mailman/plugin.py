"""The plugin that Mailman loads: five lines of its configuration put its queues on this switchboard.

::

    [plugin.switchboard]
    class: switchboard.mailman.Plugin
    enabled: yes
"""

from __future__ import annotations

from mailman.interfaces.plugin import IPlugin
from zope.interface import implementer

from switchboard.mailman.installation import install


@implementer(IPlugin)
class Plugin:
    """See Mailman's `IPlugin`."""

    # Nothing is added to Mailman's REST interface.
    resource = None

    def pre_hook(self) -> None:
        """Install the queues: Mailman calls this before it opens its database, in each of its processes."""
        install()

    def post_hook(self) -> None:
        """Nothing is left to do when the database is open."""
