"""What ``bin/demo`` shows: one installation, from ``init`` to ``stop``, with every command as one would type it.

The commands are run by a shell exactly as they are printed, so that what a newcomer repeats is what was seen.  Only two things
are done behind the scenes: messages are published from Python, by the lines that are shown, and the live table
is drawn from the scoreboard and the queue directories.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# ruff: noqa: E402 - a Ctrl-C while the rest is loaded would end it with a traceback
signal.signal(signal.SIGINT, signal.SIG_DFL)

from _scenery import CHANGES, DROPS, PUBLISH, RUNNER
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from switchboard import Spool
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import Scoreboard

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / 'docs' / 'samples'

# Enough to see them flow, for some two seconds.
PUBLISHED = 200
PATIENCE_S = 120.0
FRAME_S = 0.1
PLAIN_FRAME_S = 0.5
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def hear() -> None:
    """Let signals in that `Demo.spawn` keeps out."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


class Demo:
    """One run.

    :param home: its directory, which is there and empty.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / 'etc' / 'switchboard.cfg'
        self.spool_directory = home / 'var' / 'spool'
        terminal = Console()
        self.live = terminal.is_terminal and not terminal.is_dumb_terminal
        self.console = terminal if self.live else Console(width=100, highlight=False)
        self.environment = {
            **os.environ,
            'PATH': f'{ROOT / "bin"}:{os.environ.get("PATH", os.defpath)}',
            'SAMPLES': str(SAMPLES),
            'COLUMNS': str(self.console.width),
        }
        for name in ('SWITCHBOARD_CONFIG', 'SWITCHBOARD_SPOOL'):
            self.environment.pop(name, None)
        self.steps = 0

    # What is printed.

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def step(self, title: str) -> None:
        self.steps += 1
        self.console.print()
        self.console.print(f'[bold cyan]{self.steps}. {title}[/]', highlight=False)

    def prompt(self, command: str) -> None:
        self.console.print(Text(f'$ {command}', style='bold green'), soft_wrap=True)
        sys.stdout.flush()

    def run(self, command: str) -> None:
        """Show a command and run it.

        It has a session of its own: a Ctrl-C is for the demo, which lets the command end before it cleans up.  A `start` that
        is broken off in the middle would leave a master that nobody stops.
        """
        self.prompt(command)
        process = self.spawn(['/bin/sh', '-c', command])
        try:
            hear()
            status = process.wait()
        except KeyboardInterrupt:
            process.wait(PATIENCE_S)
            raise
        if status:
            raise subprocess.CalledProcessError(status, command)

    def spawn(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        """Start a process, deaf to what would end this one: with it, a process would be there that nobody knows of.

        Call `hear` where its end is waited for.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        return subprocess.Popen(
            command, cwd=self.home, env=self.environment, start_new_session=True, preexec_fn=hear
        )

    def code(self, text: str, language: str) -> None:
        if self.live:
            self.console.print(Syntax(text.rstrip(), language, theme='ansi_dark', background_color='default'))
        else:
            print(''.join(f'    {line}\n' for line in text.splitlines()), end='')

    # The steps.

    def show(self) -> None:
        self.say('[bold]Switchboard[/]: a durable queue for one machine, without a broker.')
        self.say(
            f'All of this happens in {self.home}; the lines with a $ are commands, run as they stand there.'
        )
        self._make()
        self._start()
        self._drop()
        self._publish()
        self._look_into_bad()
        self._mend()
        self.step('Stop')
        self.run('switchboard stop')

    def _make(self) -> None:
        self.step('Make an installation: a commented sample configuration and a spool')
        programs, samples = shlex.quote(str(ROOT / 'bin')), shlex.quote(str(SAMPLES))
        self.prompt(f'export PATH={programs}:$PATH SAMPLES={samples}')
        self.run(f'switchboard init {shlex.quote(str(self.home))}')
        self.prompt(f'cd {shlex.quote(str(self.home))}')
        self.prompt('export SWITCHBOARD_CONFIG=$PWD/etc/switchboard.cfg')
        self.environment['SWITCHBOARD_CONFIG'] = str(self.config)
        self.step('Write a runner: delivery.py')
        self.code(RUNNER, 'python')
        (self.home / 'delivery.py').write_text(RUNNER)
        text = self.config.read_text()
        for before, after in CHANGES:
            assert before in text, f'the sample configuration has changed: {before!r}'
            text = text.replace(before, after)
        self.config.write_text(text)
        self.say('and name it in etc/switchboard.cfg, where the exchange sends personal mail and list mail:')
        self.code(CHANGES[0][1], 'ini')
        self.run('mkdir -p mailboxes/garden mailboxes/anna mailboxes/bjorn')
        self.run('switchboard check')

    def _start(self) -> None:
        self.step('Start the master and its runners')
        self.run('switchboard start')
        self.run('switchboard route mail lists.garden.post')

    def _drop(self) -> None:
        self.step(
            'Drop mails, as Postfix, Exim or a script would: silence and exit status 0 mean it is on the disk'
        )
        for name, sender, recipient, key in DROPS:
            self.run(f'drop in -f \'{sender}\' -r {recipient} -m routing_key={key} < "$SAMPLES"/{name}.eml')

    def _publish(self) -> None:
        self.step(f'Publish {PUBLISHED} more from Python, each to two queues in one step, and see them flow')
        source = PUBLISH.format(number=PUBLISHED)
        self.code(source, 'python')
        script = self.home / 'publish.py'
        script.write_text(source)
        started_s = time.monotonic()
        publisher = self.spawn([sys.executable, script])
        try:
            hear()
            self._watch(publisher, started_s)
        finally:
            publisher.kill()
            publisher.wait()
        self.say(f'All of them have gone where they were to go, after {time.monotonic() - started_s:.1f} s.')

    def _watch(self, publisher: subprocess.Popen[bytes], started_s: float) -> None:
        """Draw the queues until all is done."""
        if self.live:
            with Live(console=self.console, refresh_per_second=1 / FRAME_S, transient=False) as live:
                while not self._is_done(publisher, started_s):
                    live.update(self._table())
                    time.sleep(FRAME_S)
                live.update(self._table())
            return
        while True:
            done = self._is_done(publisher, started_s)
            counts = '  '.join(
                f'{queue} {waiting} waiting, {done} done' for queue, waiting, done in self._counts()
            )
            print(f'  {time.monotonic() - started_s:4.1f} s  {counts}', flush=True)
            if done:
                return
            time.sleep(PLAIN_FRAME_S)

    def _is_done(self, publisher: subprocess.Popen[bytes], started_s: float) -> bool:
        if time.monotonic() - started_s > PATIENCE_S:
            raise TimeoutError(f'messages are still on their way after {PATIENCE_S:g} s')
        status = publisher.poll()
        if status:
            raise subprocess.CalledProcessError(status, 'publish.py')
        return status == 0 and not any(waiting for _, waiting, _ in self._counts())

    def _counts(self) -> list[tuple[str, int, int]]:
        """:return: queue, entries that wait or are at work, and those that its runner has done."""
        done: dict[str, int] = {}
        scoreboard = Scoreboard.open(self.spool_directory / '.run' / 'master' / 'scoreboard')
        try:
            for record in scoreboard.records():
                done[record.runner] = done.get(record.runner, 0) + record.done
        finally:
            scoreboard.close()
        queues = {'in': 'route', 'lists': 'lists', 'archive': 'archive', 'out': 'out'}
        return [
            (queue, self._waiting(self.spool_directory / queue), done.get(runner, 0))
            for queue, runner in queues.items()
        ]

    def _waiting(self, directory: Path) -> int:
        return sum(name.endswith(('.pck', '.bak')) for name in os.listdir(directory))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2), header_style='dim')
        for column in ('queue', 'waiting', 'done'):
            table.add_column(column, justify='left' if column == 'queue' else 'right')
        table.add_column('')
        for queue, waiting, done in self._counts():
            bar = ProgressBar(
                total=PUBLISHED, completed=min(PUBLISHED, waiting), width=40, complete_style='cyan'
            )
            table.add_row(queue, str(waiting), str(done), bar)
        return table

    def _look_into_bad(self) -> None:
        self.step('One mail could not be delivered. It is in the bad queue, and says itself why')
        self.run('switchboard queues')
        self.run('switchboard ls bad')
        [entry] = Spool(self.spool_directory)['bad'].get_files('.psv')
        self.run(f'switchboard show --headers bad/{entry[:21]}')

    def _mend(self) -> None:
        self.step('Mend the cause, and send back what failed for it; its history knows where it came from')
        self.run('mkdir mailboxes/carla')
        self.run('switchboard retry --error FileNotFoundError --yes')
        delivered = self.home / 'mailboxes' / 'carla'
        give_up_s = time.monotonic() + PATIENCE_S
        while not os.listdir(delivered):
            if time.monotonic() > give_up_s:
                raise TimeoutError('the mail that was sent back has not arrived')
            time.sleep(FRAME_S / 10)
        self.run('ls mailboxes/carla')
        self.run('switchboard status')

    def stop(self) -> None:
        """Stop the master, if it runs."""
        if self.config.exists() and master_alive(self.spool_directory):
            subprocess.run(
                [ROOT / 'bin' / 'switchboard', '-C', self.config, 'stop'],
                env=self.environment,
                check=False,
                stdout=subprocess.DEVNULL,
            )

    def farewell(self, *, kept: bool) -> None:
        self.console.print()
        self.say('[bold]That was all.[/] Where to go from here:')
        self.say('  docs/tutorial/          the first queue, in ten minutes')
        self.say('  docs/howto/             write a runner, route mail, connect a mail server')
        self.say('  etc/switchboard.cfg     every key, with its default')
        if kept:
            self.say(f'  {self.home}   is still there: `switchboard start`, look around, `rm -r` it')


def main() -> int:
    def stop(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for signum in ENDING:
        signal.signal(signum, stop)
    keep = '--keep' in sys.argv[1:]
    home = Path(tempfile.mkdtemp(prefix='switchboard-demo-'))
    demo = Demo(home)
    status = 1
    try:
        demo.show()
        status = 0
    except KeyboardInterrupt:
        demo.console.print('\ndemo: stopping and cleaning up')
        status = 130
    except subprocess.CalledProcessError as error:
        demo.console.print(f'\ndemo: a command ended with status {error.returncode}', style='bold red')
    except (OSError, TimeoutError) as error:
        demo.console.print(f'\ndemo: {error}', style='bold red')
    finally:
        demo.stop()
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
    if status == 0:
        demo.farewell(kept=keep)
    return status


if __name__ == '__main__':
    sys.exit(main())
