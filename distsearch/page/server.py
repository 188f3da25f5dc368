"""The live page's server: on loopback, for whoever has the token, in a process of its own.

Searches are only read. What the page asks of one goes into its folder as a request, like that of
the command line. Each browser asks for changes by a question that is kept open, so that all works
through an SSH tunnel; what figures show is prepared once for all browsers.
"""

from __future__ import annotations

import asyncio
import getpass
import hmac
import json
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bokeh
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, StaticFileHandler

from ..core import requests
from ..errors import DistsearchError, OptionError
from . import table
from .panels import PANELS, answer
from .report import STATIC
from .view import View
from .watch import Watch

HOSTS = ("localhost", "127.0.0.1", "[::1]")  # what is asked of another host is refused
ANSWER_S = 15.0  # the driver has so long to answer a request
MAX_BODY = 64 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
BOKEH = Path(bokeh.__file__).parent / "server" / "static" / "js"


class Server:
    """The page of some folders; `address` is what a browser opens.

        server = Server(["runs/digits"], port=0, say=print)
        await server.start()
        print(server.address)
        server.close()

    `port`: 0 takes a free one. Raises OptionError for a port that is taken.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        *,
        port: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.watch = Watch(folders, say)
        self.token = secrets.token_urlsafe(24)
        try:
            self._sockets = bind_sockets(port, "127.0.0.1", socket.AF_INET)
        except OSError as error:
            raise OptionError(
                f"port {port} cannot be used: {error}; give another --port"
            ) from error
        self.port: int = self._sockets[0].getsockname()[1]
        shared = {"server": self}
        application = Application(
            [
                ("/", _Shell),
                ("/static/(.*)", _Static, {"path": str(STATIC)}),
                ("/bokeh/(bokeh\\.min\\.js)", _Static, {"path": str(BOKEH)}),
                ("/api/state", _State, shared),
                ("/api/panel", _Panel, shared),
                ("/api/trials", _Trials, shared),
                ("/api/trial", _Trial, shared),
                ("/api/ask", _Ask, shared),
            ],
            default_handler_class=_Nothing,
            log_function=lambda handler: None,
        )
        self._http = HTTPServer(application, max_buffer_size=4 * MAX_BODY)

    @property
    def address(self) -> str:
        """The address for a browser; the token is in its fragment, which is sent to nobody."""
        return f"http://127.0.0.1:{self.port}/#token={self.token}"

    @property
    def tunnel(self) -> str:
        """The command that brings the page to another machine."""
        host = f"{getpass.getuser()}@{socket.gethostname()}"
        return f"ssh -C -N -L {self.port}:127.0.0.1:{self.port} {host}"

    async def start(self) -> None:
        """Answer from here on, and begin to read."""
        self._http.add_sockets(self._sockets)
        await self.watch.start()

    def close(self) -> None:
        """Answer no more."""
        self.watch.close()
        self._http.stop()

    def view(self, number: str) -> View:
        """The search of this number. Raises OptionError while it is read, and for another one."""
        seats = self.watch.seats
        if not number.isdecimal() or int(number) >= len(seats):
            raise OptionError(f"there is no search {number!r}; there are {len(seats)}, from 0 on")
        seat = seats[int(number)]
        if seat.view is None:
            raise OptionError(seat.error or seat.reading)
        return seat.view


async def serve(server: Server) -> None:
    """Serve until this is cancelled."""
    await server.start()
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


class _Guarded(RequestHandler):
    """A handler that refuses requests for another host, or from another site's script."""

    def prepare(self) -> None:
        host = urlsplit(f"//{self.request.host}")
        name = f"[{host.hostname}]" if ":" in (host.hostname or "") else host.hostname
        origin = self.request.headers.get("Origin")
        if name not in HOSTS:
            self.refuse(f"this page is served to localhost only, not to {self.request.host!r}")
        elif origin is not None and origin != f"http://{self.request.host}":
            self.refuse("another site may not ask this page")

    def refuse(self, why: str, status: int = 403) -> None:
        """Answer with an error, and nothing else."""
        self.set_status(status)
        self.finish({"error": why})

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "no-cache")
        self.clear_header("Server")

    def write_error(self, status_code: int, **more: Any) -> None:
        self.finish({"error": self._reason})


class _Nothing(_Guarded):
    def prepare(self) -> None:
        self.refuse("there is nothing here", 404)


class _Static(_Guarded, StaticFileHandler):
    """The page's own files, which hold nothing of any search."""


class _Shell(_Guarded):
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "page.html").read_text(encoding="utf-8"))


class _Api(_Guarded):
    """A handler that tells or changes something of a search, for whoever has the token."""

    def initialize(self, server: Server) -> None:
        self.server = server

    def prepare(self) -> None:
        super().prepare()
        if self._finished:
            return
        given = self.request.headers.get("X-Distsearch-Token", "")
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            self.refuse(
                "this page needs the token of its address: open the whole address that "
                "`distsearch page` has printed"
            )

    async def told(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Answer with what a function returns, or with its error in words."""
        try:
            self.finish(await self.server.watch.work(job, *arguments))
        except DistsearchError as error:
            self.finish({"error": str(error)})


class _State(_Api):
    async def get(self) -> None:
        after = self.get_query_argument("after", "-1")
        number = int(after) if after.lstrip("-").isdecimal() else -1
        self.finish(await self.server.watch.state(number))


class _Panel(_Api):
    async def get(self) -> None:
        given = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        number, name = given.pop("search", ""), given.pop("name", "")
        known, drawn = given.pop("known", ""), given.pop("drawn", "")

        def find() -> dict[str, Any]:
            if name not in PANELS:
                raise OptionError(f"there is no panel {name!r}")
            if number == "all":
                seats = self.server.watch.seats
                views = [seat.view for seat in seats if seat.view is not None]
            else:
                views = [self.server.view(number)]
            return answer(name, views, given, known, drawn)

        await self.told(find)


class _Trials(_Api):
    async def get(self) -> None:
        def number(name: str) -> int:
            given = self.get_query_argument(name, "0")
            return int(given) if given.isdecimal() else 0

        def find() -> dict[str, Any]:
            view = self.server.view(self.get_query_argument("search", "0"))
            with view.lock:
                found = table.page(
                    view,
                    sort=self.get_query_argument("sort", "trial"),
                    descending=bool(number("descending")),
                    where=self.get_query_argument("where", ""),
                    start=number("start"),
                )
            rows = [[_without_nan(value) for value in row] for row in found.rows]
            return {**found._asdict(), "rows": rows}

        await self.told(find)


def _without_nan(value: Any) -> Any:
    return str(value) if isinstance(value, float) and value - value != 0 else value


class _Trial(_Api):
    async def get(self) -> None:
        def find() -> dict[str, Any]:
            view = self.server.view(self.get_query_argument("search", "0"))
            number = self.get_query_argument("trial", "")
            with view.lock:
                return table.detail(view, int(number) if number.isdecimal() else -1)

        await self.told(find)


class _Ask(_Api):
    async def post(self) -> None:
        def ask() -> dict[str, Any]:
            try:
                given = json.loads(self.request.body)
                number, kind, what = str(given["search"]), given["kind"], dict(given["what"])
            except (ValueError, TypeError, KeyError) as error:
                raise OptionError(f"this is no request: {error!r}") from error
            view = self.server.view(number)
            after = view.revision
            folder = view.story.folder
            named = requests.ask(folder, str(kind), by="the page", **what)
            found = requests.answer_of(folder, named, ANSWER_S, after=after)
            if found is None:
                return {"said": "asked; nothing has come of it yet"}
            return {"said": found.said} if found.is_done else {"error": found.said}

        await self.told(ask)
