"""`distsearch data`: what a data set is like, before anything learns from it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ..data import facts_of
from .main import Group
from .options import data_options


@click.group(cls=Group)
def group() -> None:
    """Look at data sets."""


@group.command()
@data_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(data: str, data_root: str | None, as_json: bool) -> None:
    """Say what is loaded under a name or from a folder, or why it cannot be learned from."""
    facts = facts_of(data, data_root)
    if as_json:
        click.echo(json.dumps(asdict(facts)))
        return
    channels, height, width = facts.shape
    click.echo(f"{facts.name}: {facts.train} images to train with, {facts.test} to test with")
    click.echo(f"{width} x {height} pixels, {channels} channel{'s' * (channels > 1)}")
    click.echo(f"{len(facts.classes)} classes: {', '.join(facts.classes)}")
