"""``route`` and ``graph``: where a message would go and why, and the whole picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.selecting import pairs_callback
from switchboard.cli.tables import is_terminal, write_json
from switchboard.cli.wording import visible
from switchboard.routing.exchange import Step


def _fields(step: Step) -> dict[str, Any]:
    fields = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {**fields, 'binding': str(step.binding) if step.binding is not None else None}


@verb()
@click.argument('exchange')
@click.argument('routing_key', metavar='KEY')
@click.option(
    '-H',
    '--header',
    'headers',
    multiple=True,
    metavar='KEY=VALUE',
    callback=pairs_callback,
    help="One of the message's metadata, for headers exchanges; KEY:=JSON for other than text.",
)
@json_option
@click.pass_context
def route(
    context: click.Context,
    installation: Installation,
    exchange: str,
    routing_key: str,
    headers: dict[str, Any],
    as_json: bool,
) -> None:
    """Explain where a message with this KEY would go from EXCHANGE, and why.

    Every binding that is looked at is a line: + it matches, - it does not.  The default exchange is called ''.
    Exit status 67 if nobody takes the message.

    \b
    switchboard route mail lists.dogs.post
    switchboard route reports '' -H format=pdf -H urgent:=true
    """
    steps = installation.exchanges().explain(exchange, routing_key, headers)
    queues = list(dict.fromkeys(queue for step in steps for queue in step.delivered))
    unknown = [queue for queue in queues if not installation.takes(queue)]
    if as_json:
        for step in steps:
            write_json(_fields(step))
    else:
        for step in steps:
            line = visible(str(step))
            click.echo(click.style(line, fg='green') if step.matched and is_terminal() else line)
        click.echo(f'\n{", ".join(queues)}' if queues else '\nnobody takes it')
        for queue in unknown:
            click.echo(f'there is no queue {visible(queue)!r}: publishing it is an error')
    context.exit(Exit.OK if queues and not unknown else Exit.NO_ROUTE)


@verb()
@click.option('--svg', is_flag=True, help='As a picture: switchboard graph --svg > graph.svg')
@click.option(
    '--dot', is_flag=True, help="In Graphviz' language: switchboard graph --dot | dot -Tsvg > graph.svg"
)
@json_option
def graph(installation: Installation, svg: bool, dot: bool, as_json: bool) -> None:
    """Draw which exchange feeds which queue, and which runner takes from it.

    What programs have declared in the spool is in it too.
    """
    exchanges = installation.exchanges()
    if installation.named_spool is None:
        picture = dataclasses.replace(installation.config, exchanges=exchanges).graph()
    else:
        picture = exchanges.graph()
    if as_json:
        for node in picture.nodes:
            write_json({'node': node.kind, 'name': node.name, 'note': node.note})
        for edge in picture.edges:
            write_json({'edge': edge.kind, 'from': edge.source, 'to': edge.target, 'label': edge.label})
    elif svg:
        from switchboard.routing.picture import to_svg

        click.echo(to_svg(picture), nl=False)
    else:
        click.echo(picture.to_dot() if dot else picture.to_text(), nl=False)
