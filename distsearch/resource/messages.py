"""What a driver and the agent of a node say to each other.

Messages are dicts of what JSON can hold, and bytes, with a key `op`; those of each side arrive in
the order in which they were sent.

    from the driver
        preload    modules, sys_path, entry, spawn, surroundings      before the first start
        function   name, data (offset, done)             a pickled train function (a piece of it)
        find       modules                               are they there?
        upload     path, data, done, sha256, mode        a piece of a file for the work folder
        meet       trial, attempt, alone, goes_on        rank 0 starts here: choose it a port
        reach      trial, attempt, goes_on, addresses,   other ranks start here: prove that they
                   port, token                           reach that port
        start      trial, attempt, rank, job, env, threads, limits, reuse
        decide     trial, attempt, ranks, decision       'continue', 'stop' or 'pause'
        stop       trial, attempt, ranks, status,        TERM; KILL after `KILL_GRACE_S`
                   reason, after_save_s                  (at its next checkpoint, or so much later)
        follow     trial, attempt, ranks, status,        another rank is over: wait for no decision,
                   reason, term_s, kill_s                TERM then, KILL so much later
        ack        bytes                                 that much of what was sent is durable
        beat       number                                answers the agent's own beat
        ping                                             has only to get there

    to the driver
        report     trial, attempt, seq, due, body        body: JSON text
        saved      trial, attempt, step, name, bytes
        output     trial, attempt, rank, text            whole lines
        ended      trial, attempt, rank, status, ...     the process is reaped: its slot is free
        refused    trial, attempt, rank, reason, lacks   it has not begun, for want of something
        meets      trial, attempt, port, token, interfaces, begins_with, error
        reached    trial, attempt, interfaces, begins_with, error
        problem    reason                                the node cannot go on
        lacks      modules                               that were to be found and are not there
        notice     text                                  what the user should know of the node
        uploaded   path, error
        beat       number

A trial may have several processes, its ranks, on this node and on others; what they have to do
with each other is in `meeting.py`. Checkpoints travel beside the messages (`cache.py`).
"""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
