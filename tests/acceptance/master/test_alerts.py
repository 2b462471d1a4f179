"""``alert_command``: an operator's command hears of what is wrong and when it is over, and can do nothing to the master.  A real master."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.installation import Installation, ends

# Tells the test what it was told: the JSON of its standard input, and two variables.
TELLER = """#!/bin/sh
printf '%s %s %s\\n' "$SWITCHBOARD_ALERT" "$SWITCHBOARD_STATE" "$(cat)" >>"$(dirname "$0")/told"
"""


def program(site: Installation, name: str, text: str) -> Path:
    path = site.home / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def configure(
    site: Installation, runners: dict[str, dict[str, Any]], command: object, **master: object
) -> None:
    site.configure(runners, **master)
    text = site.config.read_text()
    site.config.write_text(text.replace('[master]', f'alert_command = {command}\n[master]', 1))


def heard(site: Installation, name: str, state: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(site.told.wait_for(rf'^{name} {state} (.*)')[1])
    assert (facts['alert'], facts['event'], facts['state']) == (name, name, state)
    return facts


@pytest.fixture
def teller(site: Installation) -> Path:
    return program(site, 'teller', TELLER)


def test_a_runner_that_gave_up_is_told_of(site: Installation, teller: Path) -> None:
    configure(site, {'in': {'class': 'later:Job'}, 'other': {}}, teller)
    site.start(ready=False)
    facts = heard(site, 'runner-fatal', 'problem')
    assert facts['subject'] == 'in 1/1'
    assert 'cannot import later:Job' in facts['reason']
    assert (facts['spool'], facts['config']) == (str(site.spool_directory), str(site.config))
    assert facts['host'] == socket.gethostname()
    site.log.wait_for(' alerted ')
    assert site.stop() == os.EX_UNAVAILABLE


def test_a_reload_that_fails_is_told_of(site: Installation, teller: Path) -> None:
    configure(site, {'in': {}}, teller)
    site.start()
    good = site.config.read_text()
    site.config.write_text(f'{good}nonsense\n')
    assert not site.ask('reload')['ok']
    assert 'nonsense' in heard(site, 'reload-failed', 'problem')['reason']
    assert site.stop() == 0


def test_what_goes_to_bad_is_told_of_with_its_number(site: Installation, teller: Path) -> None:
    configure(site, {'in': {}}, teller, maintenance_interval='50ms')
    site.start()
    site.put('in', 'fail', 'fail')
    facts = heard(site, 'bad-grew', 'problem')
    assert facts['subject'] == 'bad'
    assert facts['number'] in (1, 2)
    assert site.stop() == 0


def test_a_reserve_of_the_disk_that_is_reached_is_told_of(site: Installation, teller: Path) -> None:
    configure(site, {'in': {}}, teller, maintenance_interval='50ms')
    # A queue whose section was removed is in nobody's way.
    site.spool_directory.joinpath('a-removed-one').mkdir(parents=True)
    with site.config.open('a') as configuration:
        configuration.write('[queue.in]\nmin_free_space = 1000000T\n')
    site.start()
    facts = heard(site, 'disk-reserve', 'problem')
    assert facts['subject'] == 'in'
    assert 'min_free_space' in facts['reason']
    assert site.stop() == 0


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('#!/bin/sh\necho "no such address"\nexit 3\n', 'error="ended with status 3" said="no such address"'),
        ('no program', 'Exec format error'),
        (None, 'No such file or directory'),
    ],
)
def test_a_command_that_fails_is_logged_and_harms_nobody(
    site: Installation, text: str | None, why: str
) -> None:
    path = site.home / 'teller' if text is None else program(site, 'teller', text)
    configure(site, {'x': {'class': 'later:Job'}, 'in': {}}, path)
    site.start(ready=False)
    assert why in site.log.wait_for(' not alerted .*')[0]
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert site.stop() == os.EX_UNAVAILABLE


def test_a_command_that_hangs_holds_nobody_up_and_ends_with_the_master(site: Installation) -> None:
    path = program(site, 'teller', '#!/bin/sh\necho "hangs $$" >>"$(dirname "$0")/told"\nexec sleep 600\n')
    configure(site, {'x': {'class': 'later:Job'}, 'in': {}}, path)
    site.start()
    pid = int(site.told.wait_for(r'hangs (\d+)')[1])
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert site.ask('status')['ok']
    # Neither a runner's end nor a reload takes it for something that a runner has left.
    assert site.ask('restart', runner='in')['ok']
    os.kill(pid, 0)
    assert site.stop() == os.EX_UNAVAILABLE
    assert ends(pid)
