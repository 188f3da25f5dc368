"""What is drawn from a seed: the search, and the machines that it is for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ...core.decorators import args
from ...space import Int, Real

RULES = (
    *("fifo", "evolution", "stopping", "promotion", "synchronous", "pbt"),
    *("partial", "unasked", "front"),
)


@args(x=Real(0.0, 1.0), y=Int(1, 3))
def train_fn(args: Any, reporter: Any) -> None:
    """Never called: fake trials train in its place."""


class Weather(TypedDict, total=False):
    """What of a story is not drawn from its seed."""

    troubles: Sequence[str]  # names of TROUBLES
    blows: int  # how many of them come
    delay_s: float  # of the network
    epoch_s: float  # the longest epoch of a trial
    rule: str  # one of RULES
    gangs: bool  # whether trials have several ranks
    ranks: int  # of a trial, on as many nodes as it takes
    trials: int
    cpus_of_nodes: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A search and its machines, before anything befalls them.

    plan = Plan.drawn(17, random.Random("plan 17"), {"rule": "pbt"})
    """

    seed: int
    rule: str  # one of RULES
    num_trials: int
    max_t: int  # epochs of a trial
    epoch_s: float  # the longest epoch of a trial
    saves: int  # a trial saves every so many epochs; 0: never
    cpus: int  # of a trial
    reuse: bool  # one process trains several trials, one after another
    zoo: bool  # trials come to bad ends of all kinds
    report_timeout: float | None  # in seconds
    max_failures: int
    cpus_of_nodes: tuple[int, ...]
    delay_s: float  # of the network
    echo: bool  # some of what agents say is heard twice
    ranks: int  # of a trial
    ranks_per_node: int | None

    @classmethod
    def drawn(cls, seed: int, draw: random.Random, weather: Weather) -> Plan:
        """The plan of a seed; what `weather` names is as it says there."""
        # (Drawn in this order, and drawn too where the weather says another thing: a seed is to
        # stay the story that it is.)
        rule = weather.get("rule", draw.choice(RULES))
        num_trials = weather.get("trials", draw.randint(4, 14))
        max_t = draw.randint(3, 9)
        epoch_s = weather.get("epoch_s", draw.choice([0.3, 2.0, 8.0, 25.0, 25.0]))
        saves = draw.choice([0, 1, 1, 2])
        cpus = draw.choice([1, 1, 1, 2])
        reuse = draw.random() < 0.4
        zoo = draw.random() < 0.5
        report_timeout = draw.choice([None, 40.0]) if zoo else None
        max_failures = draw.choice([0, 1, 3, 3])
        count = draw.randint(1, 3)
        drawn = tuple(draw.randint(cpus, 3) for _ in range(count))
        cpus_of_nodes = weather.get("cpus_of_nodes", drawn)
        delay_s = weather.get("delay_s", draw.choice([0.0005, 0.003, 0.1, 1.5]))
        echo = draw.random() < 0.25
        # (By dice of its own, so that the seeds without gangs stay what they were.)
        of_gangs = random.Random(f"gang {seed}")
        ranks, ranks_per_node = 1, None
        if weather.get("gangs", of_gangs.random() < 0.25):
            ranks, ranks_per_node = _gang([n // cpus for n in cpus_of_nodes], of_gangs)
        if "ranks" in weather:
            ranks, ranks_per_node = weather["ranks"], None
        return cls(
            seed=seed,
            rule=rule,
            num_trials=num_trials,
            max_t=max_t,
            epoch_s=epoch_s,
            saves=saves,
            cpus=cpus,
            reuse=reuse and ranks == 1,
            zoo=zoo,
            report_timeout=report_timeout,
            max_failures=max_failures,
            cpus_of_nodes=cpus_of_nodes,
            delay_s=delay_s,
            echo=echo,
            ranks=ranks,
            ranks_per_node=ranks_per_node,
        )


def _gang(room: Sequence[int], draw: random.Random) -> tuple[int, int | None]:
    """How many ranks a trial has, and how many on each node, where there is room for so many."""
    shapes: list[tuple[int, int | None]] = [
        (ranks, None) for ranks in range(2, min(4, sum(room)) + 1)
    ]
    shapes += [
        (nodes * each, each)
        for each in (1, 2)
        for nodes in range(1, 1 + sum(one >= each for one in room))
        if nodes * each > 1
    ]
    return draw.choice(shapes or [(1, None)])
