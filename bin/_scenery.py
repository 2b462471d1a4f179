"""What the demo is played with: its runner, its producer, its mails, and what is changed in the sample configuration."""

RUNNER = '''\
import time
from pathlib import Path

from switchboard import Runner

MAILBOXES = Path(__file__).parent / 'mailboxes'


class Deliver(Runner):
    """Puts each mail into the folder of its recipient."""

    def dispose(self, msg, msgdata):
        time.sleep(0.005)  # or there would be nothing to see
        for recipient in msgdata['recipients']:
            folder = MAILBOXES / Path(recipient).name.partition('@')[0]
            (folder / f'{self.idempotency_key}.eml').write_bytes(msg.as_bytes())
'''

PUBLISH = """\
from email.message import EmailMessage
from switchboard import Spool

spool = Spool.from_config('etc/switchboard.cfg')
for number in range({number}):
    mail = EmailMessage()
    mail['Subject'] = f'Report {{number}}'
    mail.set_content('All is well.')
    spool.publish(
        mail, exchange='mail', routing_key='lists.garden.post', recipients=['garden@lists.example.com']
    )
"""

# What is changed in the sample configuration: (as it is, as it is for the demo).
CHANGES = (
    ('[runner.out]\nclass = null', '[runner.out]\nclass = delivery:Deliver\ninstances = 2'),
    ('max_attempts = 30', 'max_attempts = 1'),
)

DROPS = (
    ('plain', 'anna@example.org', 'garden@lists.example.com', 'lists.garden.post'),
    ('multipart', 'bjorn@example.net', 'garden@lists.example.com', 'lists.garden.post'),
    ('eight-bit', 'zoe@example.org', 'anna@example.org', 'personal.anna'),
    ('huge-header', 'carla@example.org', 'bjorn@example.net', 'personal.bjorn'),
    ('broken', '', 'garden@lists.example.com', 'lists.garden.bounce'),
    ('plain', 'anna@example.org', 'carla@example.org', 'personal.carla'),
)
