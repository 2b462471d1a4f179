"""Each page and its twin, side by side in a real browser: the same numbers, the same names, in the same order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from switchboard.web.app import PAGES
from tests.browser.conftest import Site
from tests.helpers.commands import fail, succeed, switchboard
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.server

Shown = list[Any]


def texts(tab: Any, selector: str) -> list[str]:
    """:return: the text of each element, its blanks as one."""
    return [' '.join(text.split()) for text in tab.locator(selector).all_inner_texts()]


def cells(tab: Any, table: str, *labels: str) -> list[tuple[str, ...]]:
    """:return: of each row of a table the cells with these labels."""
    rows = tab.locator(f'{table} tbody tr').all()
    return [
        tuple(' '.join(row.locator(f'[data-label="{label}"]').inner_text().split()) for label in labels)
        for row in rows
    ]


def grouped(number: int) -> str:
    return f'{number:,}'


def facts(tab: Any) -> dict[str, str]:
    return dict(zip(texts(tab, '.facts dt'), texts(tab, '.facts dd'), strict=True))


def overview(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Alarms, why entries failed, the counts of each queue, runners."""
    columns = ('waiting', 'delayed', 'held', 'at work', 'bad')
    queues = [
        tuple(
            '\N{EN DASH}'
            if one[key] is None
            else grouped(
                one[key] + (one['preserved'] if key == 'waiting' and one['queue'] in ('bad', 'trash') else 0)
            )
            for key in ('waiting', 'delayed', 'held', 'claimed', 'in_bad')
        )
        for one in twin['queues']
    ]
    return (
        [
            texts(tab, '.alarm > span:last-child'),
            texts(tab, '.why tbody th'),
            texts(tab, '.why [data-label=entries] strong'),
            texts(tab, '[aria-label=Queues] tbody th a'),
            cells(tab, '[aria-label=Queues]', *columns),
            texts(tab, 'aside li > a'),
            [text.split(' done')[0] for text in texts(tab, 'aside li .n')],
        ],
        [
            [one['text'] for one in twin['alarms']],
            [one['error'] for one in twin['errors']],
            [grouped(one['entries']) for one in twin['errors']],
            [one['queue'] for one in twin['queues']],
            queues,
            [one['runner'] for one in twin['runners']],
            [grouped(one['done']) for one in twin['runners']],
        ],
    )


def queue(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Counts, and options with who set them."""
    keys = ('waiting', 'delayed', 'held', 'claimed', 'preserved')
    return (
        [
            texts(tab, 'h1'),
            texts(tab, 'a.tile .big'),
            texts(tab, 'main td:nth-child(2), main td:nth-child(3), main td code, main th code'),
            [text.lower().partition(' since')[0] for text in texts(tab, '.alarm > span:last-child')],
        ],
        [
            [twin['queue']],
            [grouped(twin[key]) for key in keys],
            [text for key, told in twin['set_options'].items() for text in (key, told, twin['set'][key])],
            list(twin['flag_details']),
        ],
    )


def entries(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Names in their order, with state, kind, size, tries and error; how many fit; the next page."""
    keys = tab.eval_on_selector_all('[data-key]', 'all => all.map((one) => one.dataset.key)')
    following = tab.locator('a[rel=next]')
    return (
        [
            keys,
            cells(tab, '.rows', 'queue', 'state', 'kind', 'size'),
            [text.split()[0] for text in texts(tab, '.rows [data-label=tries]')],
            texts(tab, '.rows td.error strong'),
            texts(tab, '.rows td.error .message'),
            re.findall(r'[\d,]+', tab.inner_text('[data-live=count]')),
            following.get_attribute('href').partition('after=')[2] if following.count() else None,
        ],
        [
            [f'{one["queue"]}/{one["filebase"]}' for one in twin['entries']],
            [
                (one['origin'] or one['queue'], one['state'], one['kind'], str(one['body_bytes']))
                for one in twin['entries']
            ],
            [str(one['attempts'] + one['recoveries']) for one in twin['entries']],
            [one['error'] for one in twin['entries']],
            [one['message'] for one in twin['entries']],
            [grouped(twin['matching'])],
            twin['next'] and quote(twin['next'], safe=''),
        ],
    )


def entry(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Name, file, kind, attempts, every event with its traceback, the metadata and the body."""
    told = facts(tab)
    return (
        [
            [
                told['Name'],
                told['File'],
                told['Kind'],
                told['Came from'],
                told['Attempts'],
                told['Claimed by'],
            ],
            texts(tab, '.timeline li > div strong'),
            [one.strip() for one in tab.locator('.timeline pre').all_inner_texts()],
            dict(zip(texts(tab, '.boxed dt'), texts(tab, '.boxed dd'), strict=True)),
            [(one.inner_text().lower(),) for one in tab.locator('h3').all()],
            tab.locator('h3 + pre').all_inner_texts(),
        ],
        [
            [
                twin['filebase'],
                twin['file'],
                f'{twin["kind"]}, {twin["body_bytes"]} bytes',
                twin['origin'],
                str(twin['attempts']),
                twin['holder']['state'],
            ],
            [one['event'] for one in twin['history']],
            [one['traceback'].strip() for one in twin['history'] if 'traceback' in one],
            {
                key: str(value)
                for key, value in twin['metadata'].items()
                if key not in ('version', '_parsemsg')
            },
            [(one['title'].lower(),) for one in twin['content']['parts']],
            [one['text'] for one in twin['content']['parts']],
        ],
    )


def groups(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Groups in their order, their totals, and every cell."""
    rows = tab.locator('.heat tbody tr').all()
    return (
        [
            [' '.join(row.locator('th').inner_text().split()).removesuffix(' new') for row in rows],
            [one[0] for one in cells(tab, '.heat', 'all')],
            [
                [
                    one if one != '\N{MIDDLE DOT}' else '0'
                    for one in (cell.inner_text().strip() for cell in row.locator('td[class*=heat]').all())
                ]
                for row in rows
            ],
            texts(tab, '.heat thead th.n')[1:],
        ],
        [
            [one['group'] for one in twin['groups']],
            [grouped(one['total']) for one in twin['groups']],
            [[grouped(cell['entries']) for cell in one['cells']] for one in twin['groups']],
            twin['ages'],
        ],
    )


def canary(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """The fate of each, and of how many."""
    return (
        [
            texts(tab, 'main tbody th'),
            texts(tab, 'main tbody .state'),
            re.findall(r'\d+', tab.inner_text('.alarm')),
        ],
        [
            [one['entry'] for one in twin['entries']],
            [one['became'] for one in twin['entries']],
            [
                str(twin['counts']['went through']),
                str(len(twin['entries'])),
                *(str(twin['counts'][word]) for word in ('failed again', 'not done yet')),
            ],
        ],
    )


def runners(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Each slice: its state, its process, what it has done."""
    slices = [one for runner in twin['runners'] for one in runner['slices']]
    return (
        [
            texts(tab, 'main h2'),
            texts(tab, 'main tbody th'),
            cells(tab, 'main', 'state', 'pid', 'done', 'failed'),
            re.findall(r'master (\d+)', tab.inner_text('.head >> nth=0')),
        ],
        [
            [one['runner'] for one in twin['runners']],
            [f'{one["slice"]}/{one["slices"]}' for one in slices],
            [(one['state'], str(one['pid']), grouped(one['done']), grouped(one['failed'])) for one in slices],
            [str(twin['master']['pid'])],
        ],
    )


def topology(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Each route, with how much waits at its ends."""

    def end(kind: str, name: str) -> str:
        waiting = twin['waiting'].get(name) if kind == 'queue' else None
        return ' '.join([kind, name, *([grouped(waiting)] if waiting else [])])

    return (
        [texts(tab, '[aria-label=Routes] tbody td')],
        [
            [
                text
                for one in twin['routes']
                for text in (
                    end(*one['from']),
                    ' '.join([one['edge'], *([one['label']] if one['label'] else []), '→']),
                    end(*one['to']),
                )
            ]
        ],
    )


def configuration(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """File, runners, queues and their options, and this desk."""
    told = facts(tab)
    return (
        [
            texts(tab, '.head code'),
            texts(tab, '[aria-label=Runners] tbody th'),
            cells(tab, '[aria-label=Runners]', 'class', 'queue', 'processes'),
            texts(tab, '[aria-label=Queues] tbody th'),
            texts(tab, '[aria-label=Queues] tbody td code'),
            [told['Spool'], told['Listens at'], told['Goes by'], told['Hidden']],
        ],
        [
            [twin['file']],
            [one['runner'] for one in twin['runners']],
            [(one['class'], one['queue'], str(one['instances'])) for one in twin['runners']],
            [one['queue'] for one in twin['queues']],
            [f'{key} = {value}' for one in twin['queues'] for key, value in one['set_options'].items()],
            [
                twin['spool'],
                twin['desk']['listen'],
                ', '.join(twin['desk']['hosts']),
                ', '.join(twin['desk']['redacted']),
            ],
        ],
    )


def acts(tab: Any, twin: Any) -> tuple[Shown, Shown]:
    """Each act, the last one first: who, how, what, with what, why."""
    return (
        [
            texts(tab, 'main tbody th'),
            cells(tab, '[aria-label=Acts]', 'act', 'queue', 'entry'),
            texts(tab, 'main tbody td:last-child'),
        ],
        [
            [f'{one["by"]} {one["via"]}' for one in twin['acts']],
            [
                (one['act'], one.get('queue') or '', (one.get('entry') or '').partition('+')[0])
                for one in twin['acts']
            ],
            [one.get('reason') or '' for one in twin['acts']],
        ],
    )


# Of each route: an address, and what is compared.
COMPARED: dict[str, tuple[str, Callable[[Any, Any], tuple[Shown, Shown]]]] = {
    '/': ('/', overview),
    '/queues/{name}': ('/queues/orders', queue),
    '/entries': ('/entries?limit=20', entries),
    '/entries/{name}/{filebase}': ('/entries/bad/{filebase}', entry),
    '/groups': ('/groups', groups),
    '/canary': ('/canary?q=error:TimeoutError&entry=orders/{filebase}&entry=orders/{waiting}', canary),
    '/runners': ('/runners', runners),
    '/topology': ('/topology', topology),
    '/configuration': ('/configuration', configuration),
    '/acts': ('/acts', acts),
}


def test_every_page_is_compared() -> None:
    assert list(COMPARED) == [path for path, *_ in PAGES]


def test_each_page_and_its_twin_say_the_same(site: Site, tab: Any) -> None:
    names = [
        fail(
            site.spool,
            'orders',
            {'n': number},
            ('TimeoutError', 'Other')[number % 3 == 0],
            f'no way {number}',
            colour='red',
        )
        for number in range(45)
    ]
    waiting = [site.spool['orders'].enqueue(number) for number in range(3)]
    site.spool.pause('orders', 'the shop is closed', 'ann')
    succeed('-C', site.config, 'start')
    try:
        succeed('-C', site.config, 'hold', f'orders/{waiting[0]}', '--reason', 'wait for it', '--yes')
        succeed('-C', site.config, 'rm', f'bad/{names.pop()}', '--reason', 'not wanted', '--yes')
        address = {'filebase': quote(names[3]), 'waiting': quote(waiting[1])}

        def answer() -> Any:
            return tab.request.get(f'{site.url}/api/').json()

        eventually(
            lambda: (answer()['bad'], sum(one['held'] or 0 for one in answer()['queues'])) == (44, 1),
            'counted',
        )
        # What is shown is not to change between the page and its twin.
        tab.goto(f'{site.url}/')
        tab.select_option('#refresh', '0')
        for path, (template, compare) in COMPARED.items():
            place = template.format(**address)

            def same(place: str = place, compare: Any = compare) -> tuple[Shown, Shown]:
                tab.goto(site.url + place)
                return compare(tab, tab.request.get(f'{site.url}/api{place}').json())

            shown, told = same()
            assert any(told), path
            assert shown == told, path
    finally:
        switchboard('-C', site.config, 'stop')


def test_what_forms_lead_to_and_their_twins_say_the_same(site: Site, tab: Any) -> None:
    names = [
        fail(
            site.spool, 'orders', f'to: anne@wrong {number}\n', 'TimeoutError', colour='red', traceparent='x'
        )
        for number in range(4)
    ]
    place = f'/entries/bad/{quote(names[0])}'

    def twin(path: str, **fields: str) -> Any:
        """:return: the twin's answer to a form that the page's own script could have sent."""
        token = tab.locator('[name=token]').first.get_attribute('value')
        answer = tab.request.post(
            f'{site.url}/api{path}', form={'token': token, **fields}, headers={'Origin': site.url}
        )
        assert answer.status == 200, answer.text()
        return answer.json()

    # The form.
    tab.goto(f'{site.url}{place}/edit')
    told = tab.request.get(f'{site.url}/api{place}/edit').json()
    assert (told['why_not'], told['locked'], told['metadata']) == (
        None,
        ['traceparent'],
        '{\n  "colour": "red"\n}',
    )
    shown = {
        'metadata': tab.input_value('[name=metadata]'),
        'body': tab.input_value('[name=body]'),
        'seen': tab.locator('[name=seen]').get_attribute('value'),
        'locked': tab.inner_text('.change > p')
        .removeprefix('Not to be changed: ')
        .removesuffix('.')
        .split(', '),
        'home': tab.locator('[name=to] option').first.inner_text(),
        'command': tab.locator('footer code').text_content(),
    }
    assert shown == {key: told[key] for key in shown}
    # The difference.
    tab.fill('[name=body]', 'to: anne@right 0\n')
    tab.fill('[name=reason]', 'a slip')
    fields = {key: shown[key] for key in ('metadata', 'seen')} | {
        'body': 'to: anne@right 0\n',
        'reason': 'a slip',
    }
    told = twin(f'{place}/review', **fields)
    tab.click('text=Show the difference')
    assert [line for line in tab.inner_text('.diff').split('\n') if line] == told['difference']
    assert '+to: anne@right 0' in told['difference']
    assert tab.inner_text('h1') == f'Change and send to {told["goes_to"]}?'
    assert tab.input_value('[name=reason]') == told['reason']
    for key in ('seen', 'metadata', 'body'):
        assert tab.locator(f'[name={key}]').input_value() == told[key], key
    # The act: one of two alike by the page, the other by its twin.
    tab.click('.confirm form button')
    rows = texts(tab, '[aria-label=Done] tbody td')
    tab.goto(f'{site.url}/entries/bad/{quote(names[1])}/edit')
    seen = tab.locator('[name=seen]').get_attribute('value') or ''
    told = twin(
        f'/entries/bad/{quote(names[1])}/store',
        body='to: anne@right 1\n',
        metadata='{"colour": "red"}',
        seen=seen,
    )
    [done] = told['done']
    assert (done['entry'], done['from'], done['queue']) == (names[1], 'bad', 'orders')
    assert rows[0] == f'bad/{names[0]}'
    assert rows[1].startswith('orders/')
    # A question, and what became of it.
    tab.goto(f'{site.url}/entries')
    tab.check('[name=scope][value=all]')
    tab.click('button[value=retry]')
    asked = twin('/confirm', act='retry', scope='all', q='')
    assert tab.inner_text('h1') == f'{asked["word"]} {asked["count"]} entries?'
    assert texts(tab, '.confirm .badge') == [f'{name} {many}' for name, many in asked['by_queue'].items()]
    assert tab.locator('[name=expect]').get_attribute('value') == str(asked['count']) == '2'
    assert tab.locator('footer code').text_content() == asked['command']
    gone = twin('/act', act='retry', entry=f'bad/{names[0]}', q='')
    assert (gone['done'], gone['gone'][0]['entry']) == ([], names[0])
    tab.goto(f'{site.url}/queues/orders')
    assert twin('/queues/orders/say', say='pause', reason='closed')['act'] == 'pause'
    tab.reload()
    assert 'closed' in tab.inner_text('.alarm')


def subset(part: Any, whole: Any) -> bool:
    """:return: whether an object has all members of another, with the same values but for what is another at each look."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and (key in MOVING or subset(value, whole[key])) for key, value in part.items()
        )
    return bool(part == whole)


MOVING = ('age_s', 'oldest_age_s', 'next_due_s', 'current_s', 'heartbeat_s', 'owner_pid')


def test_what_the_command_line_says_as_json_the_twin_has_too(site: Site, tab: Any) -> None:
    site.config.with_name('exchange.cfg').write_text(
        '[exchange.x]\ntype = topic\nbindings =\n    a.* -> in\n    # -> orders\n'
    )
    names = [
        fail(site.spool, 'orders', text, error, 'no way', colour='red')
        for text, error in (('one', 'TimeoutError'), (b'\0\xff', 'Other'), ({'n': 3}, 'TimeoutError'))
    ]
    site.spool['in'].enqueue('x')
    site.spool.pause('orders', 'the shop is closed', 'ann')
    succeed('-C', site.config, 'start')
    try:
        twin = lambda path: tab.request.get(f'{site.url}/api{path}').json()  # noqa: E731 - short, and for this test alone
        tab.goto(site.url)
        eventually(lambda: twin('/')['bad'] == 3, 'counted')
        said = lambda *words: switchboard('-C', site.config, *words, '--json').objects  # noqa: E731 - short, and for this test alone

        def same(objects: list[Any], found: Any, key: str) -> None:
            by_key = {one[key]: one for one in found}
            assert objects, key
            for one in objects:
                other = by_key[one[key]]
                missing = {
                    name: (value, other.get(name))
                    for name, value in one.items()
                    if not subset({name: value}, other)
                }
                assert missing == {}, one[key]

        same(said('queues'), twin('/')['queues'], 'queue')
        status = said('status')
        assert subset(status[0], twin('/runners')['master']), (status[0], twin('/runners')['master'])
        same(
            [one for one in status if one['type'] == 'runner'],
            twin('/runners')['runners'][0]['slices'],
            'slice',
        )
        same([one for one in status if one['type'] == 'queue'], twin('/configuration')['queues'], 'queue')
        same(said('show', 'orders'), [twin('/queues/orders')], 'queue')
        same(said('ls', 'bad'), twin('/entries')['entries'], 'filebase')
        for name in names:
            same(said('show', f'bad/{name}'), [twin(f'/entries/bad/{quote(name)}')], 'filebase')
        same(said('shape', 'bad', '--by', 'error'), twin('/groups')['groups'], 'error')
        graph = said('graph')
        drawn = twin('/topology')
        assert [one for one in graph if 'node' in one] == drawn['nodes']
        assert [one for one in graph if 'edge' in one] == drawn['routes']
        form = {'act': 'retry', 'entry': f'bad/{names[0]}', 'q': ''}

        def do(path: str, **fields: str) -> Any:
            tab.goto(f'{site.url}/entries')
            token = tab.locator('[name=token]').first.get_attribute('value')
            headers = {'Origin': site.url}
            return tab.request.post(
                f'{site.url}/api{path}', form={'token': token, **fields}, headers=headers
            ).json()

        by_twin, by_hand = do('/act', **form)['done'], said('retry', f'bad/{names[1]}')
        assert by_twin[0].keys() == by_hand[0].keys()
        for act in ('pause', 'drain', 'resume'):
            for one in said(act, 'in'):
                assert subset(one, do('/queues/in/say', say=act) | {'was': one.get('was')})
        [one] = said('scale', 'out=2')
        assert subset(one, do('/runners/out/do', do='scale', instances='2'))
        [one] = said('restart', 'out')
        assert subset(one, do('/runners/out/do', do='restart'))
        site.config.write_text(site.config.read_text() + 'nonsense = 1\n')
        eventually(lambda: twin('/configuration')['errors'], 'read')
        same(said('check'), twin('/configuration')['errors'] + twin('/configuration')['warnings'], 'reason')
    finally:
        switchboard('-C', site.config, 'stop')


def test_the_pages_of_one_same_time_lose_and_repeat_nothing_and_are_the_twins(site: Site, tab: Any) -> None:
    folder = site.spool['in'].folder.path
    first = site.spool['in'].enqueue('x')
    source = Path(folder) / f'{first}.pck'
    for number in range(0xABC000, 0xABC000 + 500):
        (Path(folder) / f'{first[:-16]}{number:016x}.pck').write_bytes(source.read_bytes())
    source.unlink()
    seen: list[str] = []
    place = '/entries?q=queue:in&limit=100'
    while place:
        tab.goto(site.url + place)
        twin = tab.request.get(f'{site.url}/api{place}').json()
        keys = tab.eval_on_selector_all('[data-key]', 'all => all.map((one) => one.dataset.key)')
        assert keys == [f'{one["queue"]}/{one["filebase"]}' for one in twin['entries']]
        stamps = {one['ready_at_ns'] for one in twin['entries']}
        assert stamps == {first.partition('+')[0].replace('.', '')}
        seen += keys
        following = tab.locator('a[rel=next]')
        place = following.get_attribute('href') if following.count() else ''
    assert len(seen) == len(set(seen)) == 500
