"""Uploads: what is taken, where it lands, and what a node refuses."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import distsearch as ag
from distsearch.errors import UploadError
from distsearch.resource import remote as remote_module
from distsearch.resource.agent import Agent
from distsearch.resource.node import Node, NodeFacts
from distsearch.resource.remote import Remote
from distsearch.resource.stock import add_to_upload
from distsearch.resource.uploads import collect
from distsearch.scheduler import FIFOScheduler

WAIT_S = 20.0


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An own current folder with a few files."""
    folder = tmp_path / "here"
    for name in ("data.txt", "images/a.png", "images/deep/b.png", "pack/__init__.py", "pack/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    (folder / "my_module_of_one_file.py").write_text("X = 1\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_relative_paths_keep_their_folders(here):
    assert collect(["data.txt", "images/a.png"]) == {
        "data.txt": here / "data.txt",
        "images/a.png": here / "images" / "a.png",
    }


def test_a_folder_brings_all_that_it_holds(here):
    assert set(collect("images/")) == {"images/a.png", "images/deep/b.png"}
    assert set(collect("./images")) == {"images/a.png", "images/deep/b.png"}


def test_an_absolute_path_or_one_from_outside_lands_under_its_last_name(here):
    assert set(collect(here / "images" / "deep")) == {"deep/b.png"}
    assert set(collect("../here/data.txt")) == {"data.txt"}


def test_a_home_folder_is_expanded(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert collect("~/data.txt") == {"data.txt": here / "data.txt"}


def test_modules_land_where_import_finds_them(here):
    import my_module_of_one_file
    import pack

    try:
        assert set(collect([my_module_of_one_file, pack])) == {
            "my_module_of_one_file.py",
            "pack/__init__.py",
            "pack/x.py",
        }
        assert set(collect("my_module_of_one_file")) == {"my_module_of_one_file.py"}
    finally:
        for name in ("my_module_of_one_file", "pack"):
            sys.modules.pop(name)


def test_compiled_files_stay_at_home(here):
    (here / "pack" / "__pycache__").mkdir()
    (here / "pack" / "__pycache__" / "x.pyc").write_text("old")
    assert set(collect("pack/")) == {"pack/__init__.py", "pack/x.py"}


def test_what_is_not_there_is_refused_by_name(here):
    with pytest.raises(UploadError, match=r"'nothing\.txt' cannot be uploaded: there is no such"):
        collect(["data.txt", "nothing.txt"])


def test_a_module_without_source_is_refused(here):
    with pytest.raises(UploadError, match="module sys has no Python source"):
        collect(sys)


def test_links_and_pipes_inside_a_folder_are_refused(here):
    (here / "images" / "link").symlink_to("/etc/passwd")
    with pytest.raises(UploadError, match=r"link is a link or a device"):
        collect("images")
    (here / "images" / "link").unlink()
    os.mkfifo(here / "images" / "pipe")
    with pytest.raises(UploadError, match=r"pipe is a link or a device"):
        collect("images")
    with pytest.raises(UploadError, match="neither a file nor a folder"):
        collect("images/pipe")


def test_two_files_that_would_land_as_one_are_refused(here, tmp_path):
    (tmp_path / "data.txt").write_text("another")
    with pytest.raises(UploadError, match=r"would both land as 'data\.txt'"):
        collect(["data.txt", tmp_path / "data.txt"])


# On the node


def piece(path, data=b"data", done=True, sha256=None, mode=0o644):
    digest = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    return {"path": path, "data": data, "done": done, "sha256": digest, "mode": mode}


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def work(tmp_path):
    (tmp_path / "node" / "work").mkdir(parents=True)
    return tmp_path / "node" / "work"


def test_a_file_lands_with_its_folders_and_mode(work):
    add_to_upload(work, {}, piece("a/b/run.sh", mode=0o755))
    assert (work / "a" / "b" / "run.sh").read_bytes() == b"data"
    assert (work / "a" / "b" / "run.sh").stat().st_mode & 0o777 == 0o700
    assert everything(work) == ["a", "a/b", "a/b/run.sh"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a/..", "..", ".", "", "a/../b"])
def test_a_path_that_leaves_the_work_folder_is_refused(work, tmp_path, path):
    before = everything(tmp_path)
    with pytest.raises((ValueError, OSError)):
        add_to_upload(work, {}, piece(path))
    assert everything(tmp_path) == before


@given(st.text(alphabet="./\\a\0~$ -", max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_at_all_writes_outside_the_work_folder(work, tmp_path, path):
    outside = [name for name in everything(tmp_path) if not name.startswith("node/work")]
    with contextlib.suppress(ValueError, OSError):
        add_to_upload(work, {}, piece(path))
    assert [n for n in everything(tmp_path) if not n.startswith("node/work")] == outside


@pytest.mark.parametrize("target", ["..", "/"])
def test_a_path_through_a_link_that_leaves_is_refused(work, tmp_path, target):
    outside = tmp_path / "outside"
    outside.mkdir()
    (work / "link").symlink_to(outside if target == "/" else "..")
    with pytest.raises(ValueError, match="through a link out of the folder"):
        add_to_upload(work, {}, piece("link/x"))
    with pytest.raises(ValueError, match="through a link out of the folder"):
        add_to_upload(work, {}, piece("link/new/x"))
    assert everything(outside) == []


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(work, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (work / "data.txt").symlink_to(tmp_path / "precious")
    (work / ".data.txt.part").symlink_to(tmp_path / "precious")
    add_to_upload(work, {}, piece("data.txt"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert (work / "data.txt").read_bytes() == b"data"
    assert not (work / "data.txt").is_symlink()


def test_a_wrong_hash_leaves_the_old_file_and_nothing_else(work):
    add_to_upload(work, {}, piece("data.txt", b"old"))
    with pytest.raises(ValueError, match="arrived damaged"):
        add_to_upload(work, {}, piece("data.txt", b"new", sha256="0" * 64))
    assert (work / "data.txt").read_bytes() == b"old"
    assert everything(work) == ["data.txt"]


def test_nobody_sees_half_a_file(work):
    add_to_upload(work, {}, piece("data.txt", b"old"))
    open_files = {}
    add_to_upload(work, open_files, piece("data.txt", b"ne", done=False))
    assert (work / "data.txt").read_bytes() == b"old"
    whole = hashlib.sha256(b"new").hexdigest()
    add_to_upload(work, open_files, piece("data.txt", b"w", sha256=whole))
    assert (work / "data.txt").read_bytes() == b"new"
    assert open_files == {}


def test_what_an_upload_that_broke_off_left_does_not_spoil_the_next(work):
    add_to_upload(work, {}, piece("data.txt", b"half", done=False))
    add_to_upload(work, {}, piece("data.txt", b"whole"))
    assert (work / "data.txt").read_bytes() == b"whole"


class Direct(Remote):
    """A remote whose agent is in this process; what it sends can be spoiled."""

    def __init__(self, folder, spoil=lambda message: message):
        super().__init__(0, "node", "fake://0", NodeFacts(1, (), 10**9))
        self.spoil = spoil
        self.pieces = 0
        self.agent = Agent(folder=folder, send=self.hear, lease_s=None)

    def send(self, message):
        self.pieces += 1
        self.agent.handle([self.spoil(message)])

    def hear(self, messages):
        for message in messages:
            if message["op"] == "uploaded":
                self.on_uploaded(message["path"], message["error"])

    async def close(self):
        await self.agent.close()


def uploaded(remote, name, source):
    """Upload through a real agent; its work folder."""

    async def story():
        await remote.agent.start()
        try:
            await asyncio.wait_for(remote.upload(name, source), WAIT_S)
        finally:
            await remote.close()
        return remote.agent.folder / "work"

    return asyncio.run(story())


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 2500])
def test_a_file_of_any_size_arrives_whole(tmp_path, monkeypatch, size):
    monkeypatch.setattr(remote_module, "PIECE_BYTES", 1000)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    remote = Direct(tmp_path / "node")
    folder = uploaded(remote, "a/data.bin", source)
    assert (folder / "a" / "data.bin").read_bytes() == source.read_bytes()
    assert remote.pieces == max(1, -(-size // 1000))


def test_a_piece_that_is_changed_on_its_way_is_an_upload_error(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"data")
    remote = Direct(tmp_path / "node", lambda message: {**message, "data": b"dada"})
    with pytest.raises(UploadError, match=r"data\.txt cannot be uploaded to node: .*damaged"):
        uploaded(remote, "data.txt", source)


def test_a_node_that_is_lost_meanwhile_is_an_upload_error(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"data")
    remote = Direct(tmp_path / "node")
    remote.send = lambda message: asyncio.get_running_loop().call_soon(remote.on_gone, "cut")
    with pytest.raises(UploadError, match="the node is gone: cut"):
        uploaded(remote, "data.txt", source)


@pytest.mark.parametrize("wrong", [None, 5, b"data.txt", [b"data.txt"], ["data.txt", None]])
def test_what_is_neither_path_nor_module_is_refused(here, wrong):
    with pytest.raises(UploadError, match="cannot be uploaded; give the path of a file"):
        collect(wrong)


def test_an_uploaded_module_is_imported_instead_of_an_installed_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "threadpoolctl.py").write_text("MINE = 0.5")

    @ag.args(x=1)
    def train_fn(args, reporter):
        import threadpoolctl  # which the launcher has imported already

        reporter(accuracy=threadpoolctl.MINE)

    local = Node("localhost", num_cpus=1)
    with FIFOScheduler(train_fn, local=local, verbose=0, num_trials=1) as scheduler:
        scheduler.upload_files(tmp_path / "threadpoolctl.py")
        scheduler.run()
        assert scheduler.join_jobs(timeout=WAIT_S) is True
        assert scheduler.trials[0].best_reward == 0.5, scheduler.trials[0].error
