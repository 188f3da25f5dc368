"""A test host that is a process of its own: `python -m tests.netns.sshd FOLDER ADDRESS`.

FOLDER holds `authorized_keys`; the host's key is printed as a line of known_hosts. It ends when its
standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

from tests.hosts import Host

PORT = 22


async def main(folder: str, address: str) -> None:
    host = Host(SimpleNamespace(folder=Path(folder)), env={}, hangs=False, login_s=0)
    await host.listen(address, PORT)
    print(address, host.key.export_public_key().decode().strip(), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
