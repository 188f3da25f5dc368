"""Checkpoints: whole or not there, never unpickled, the one before a damaged one."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsearch.core import checkpoint
from distsearch.errors import CheckpointError
from distsearch.resource.cache import delete_newer


def there_and_back(state, folder, step=1):
    checkpoint.save(state, folder, step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return checkpoint.load(folder)


def alike(left, right):
    """Equal in type and value, down to the last bit."""
    torch = sys.modules.get("torch")
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, (np.ndarray, np.generic)):
        same = left.dtype.newbyteorder("=") == right.dtype.newbyteorder("=")
        return same and left.shape == right.shape and np.array_equal(left, right, equal_nan=True)
    if torch is not None and isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return left == right or (left != left and right != right)


keys = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.sampled_from(["__tensor__"])
)
arrays = st.sampled_from(
    ["f2", "f4", "f8", ">f8", "i1", "i8", "u2", "u8", "?", "c8", "c16"]
).flatmap(
    lambda kind: st.sampled_from(
        [np.ones((2, 3), kind), np.array(1, kind), np.zeros((0, 2), kind), np.ones(4, kind)[::-2]]
    )
)
states = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        arrays,
        st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.float64("nan")]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=8,
).filter(lambda state: not isinstance(state, str))


@given(states)
@settings(deadline=None, max_examples=60)
def test_any_nest_of_plain_values_and_arrays_comes_back_with_its_types(tmp_path_factory, state):
    assert alike(there_and_back(state, tmp_path_factory.mktemp("any")), state)


def test_a_file_that_a_library_has_written_comes_back_as_the_path_of_a_copy(tmp_path):
    model = tmp_path / "model.json"
    model.write_text("a booster")
    for path in (model, str(model)):
        found = there_and_back(path, tmp_path / "saved")
        assert found.name == "model.json" and found.read_text() == "a booster"
        assert not found.samefile(model)
    os.truncate(found, 3)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert checkpoint.load(tmp_path / "saved").read_text() == "a booster"  # the one before


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.ones(1, "g")])
def test_arrays_that_hold_no_numbers_of_a_usual_size_are_refused(tmp_path, array):
    with pytest.raises(CheckpointError, match=r"state\.a is an array of"):
        checkpoint.save({"a": array}, tmp_path, 1)


def test_a_model_and_its_optimizer_come_back_and_train_on_alike(tmp_path):
    torch = pytest.importorskip("torch")

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def train(model, optimizer, schedule):
        loss = model(torch.arange(12.0).reshape(4, 3)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    first, second = make(), make()
    for _ in range(3):
        train(*first)
    state = {"parts": [part.state_dict() for part in first], "epoch": 3}
    loaded = there_and_back(state, tmp_path)
    for part, part_state in zip(second, loaded["parts"], strict=True):
        part.load_state_dict(part_state)
    assert 0 in loaded["parts"][1]["state"]  # an optimizer numbers its parameters
    for parts in (first, second):
        train(*parts)
    assert alike(dict(second[0].state_dict()), dict(first[0].state_dict()))


@pytest.mark.parametrize(
    "kind", ["bfloat16", "float16", "float32", "float64", "int64", "uint8", "bool", "complex64"]
)
def test_tensors_of_every_kind_come_back(tmp_path, kind):
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 3, dtype=getattr(torch, kind))
    assert alike(there_and_back({"a": tensor, "b": tensor[0, 0]}, tmp_path)["a"], tensor)


def test_tensors_that_share_memory_come_back_each_with_its_values(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(6.0)
    state = {"whole": base, "tied": base, "part": base[2:4], "turned": base.reshape(2, 3).T}
    assert alike(there_and_back(state, tmp_path), state)


def test_a_parameter_that_needs_a_gradient_comes_back_as_a_tensor(tmp_path):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(2))
    assert torch.equal(there_and_back({"w": weight}, tmp_path)["w"], weight.detach())


def test_a_folder_comes_back_as_a_path(tmp_path):
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights.bin").write_bytes(b"\0\1")
    (source / "manifest.json").write_text("its own")
    loaded = there_and_back(source, tmp_path / "kept")
    assert isinstance(loaded, Path)
    assert (loaded / "deep" / "weights.bin").read_bytes() == b"\0\1"
    assert (loaded / "manifest.json").read_text() == "its own"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is no file and no folder"):
        checkpoint.save(tmp_path / "nothing", tmp_path / "kept", 1)


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({1, 2}, "set"),
        ({1, 2}, "set"),
        (print, "builtin_function_or_method"),
        (object(), "object"),
        (np.array(["a"]), "array of <U1"),
        (np.array([None]), "array of object"),
    ],
)
def test_what_would_need_pickling_is_refused_by_its_path(tmp_path, part, kind):
    with pytest.raises(CheckpointError, match=rf"state\.model\.1\.7 is an? {kind}"):
        checkpoint.save({"model": [0, {7: part}]}, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def circle():
    state: dict = {}
    state["self"] = state
    return state


@pytest.mark.parametrize(
    "make",
    [
        circle,
        lambda: {"a": np.longdouble(1)},
        lambda: sys.modules["torch"].ones(1, dtype=sys.modules["torch"].complex128),
        lambda: {"a": sys.modules["torch"].eye(2).to_sparse()},
        lambda: {"a": sys.modules["torch"].ones(2, device="meta")},
    ],
    ids=["circle", "longdouble", "torch complex128", "sparse", "meta"],
)
def test_what_cannot_be_written_is_a_checkpoint_error_and_the_previous_one_stays(tmp_path, make):
    pytest.importorskip("torch")
    checkpoint.save({"epoch": 1}, tmp_path, 1)
    with pytest.raises(CheckpointError):
        checkpoint.save(make(), tmp_path, 2)
    assert checkpoint.load(tmp_path) == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1


def damage_bytes(path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("harm", [damage_bytes, cut, Path.unlink])
@pytest.mark.parametrize("name", ["numpy.safetensors", "state.json"])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, harm, name):
    checkpoint.save({"epoch": 1, "w": np.ones(3)}, tmp_path, 1)
    newest = checkpoint.save({"epoch": 2, "w": np.ones(3)}, tmp_path, 2)
    harm(newest / name)
    with pytest.warns(RuntimeWarning, match=f"{newest.name} is damaged.*trying the one before"):
        assert checkpoint.load(tmp_path)["epoch"] == 1


def test_a_cut_manifest_is_passed_over_with_a_warning(tmp_path):
    checkpoint.save({"epoch": 1}, tmp_path, 1)
    cut(checkpoint.save({"epoch": 2}, tmp_path, 2) / "manifest.json")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert checkpoint.load(tmp_path) == {"epoch": 1}


def test_all_damaged_is_none_with_a_warning_for_each(tmp_path):
    for step in (1, 2):
        cut(checkpoint.save({"epoch": step}, tmp_path, step) / "state.json")
    with pytest.warns(RuntimeWarning) as heard:
        assert checkpoint.load(tmp_path) is None
    assert len(heard) == 2


def test_only_the_newest_two_are_kept(tmp_path):
    for step in range(5):
        checkpoint.save({"epoch": step}, tmp_path, step)
    assert len(checkpoint.checkpoints(tmp_path)) == len(list(tmp_path.iterdir())) == 2
    assert checkpoint.load(tmp_path) == {"epoch": 4}


@pytest.mark.parametrize("steps", [[5, 5, 5], [9, 10, 11], [8, 9, 1], [10**10 - 1, 10**10, 3]])
def test_the_one_saved_last_is_loaded_whatever_its_step(tmp_path, steps):
    for number, step in enumerate(steps):
        checkpoint.save({"number": number}, tmp_path, step)
        assert checkpoint.load(tmp_path) == {"number": number}


def test_one_that_was_killed_while_writing_is_not_there_and_its_bytes_go_at_the_next(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from distsearch.core import checkpoint
        folder = Path(sys.argv[1])
        checkpoint.save({"epoch": 1}, folder, 1)
        checkpoint._facts = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save({"epoch": 2}, folder, 2)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], timeout=60)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    assert there_and_back({"epoch": 3}, tmp_path, 3) == {"epoch": 3}
    assert len(list(tmp_path.iterdir())) == len(checkpoint.checkpoints(tmp_path)) == 2


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    checkpoint.save({"w": torch.ones(2), "a": np.ones(2), "n": 1}, tmp_path, 1)

    def canary(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", canary)
    monkeypatch.setattr(pickle, "loads", canary)
    monkeypatch.setattr(pickle, "Unpickler", canary)
    monkeypatch.setattr(torch, "load", canary)
    assert checkpoint.load(tmp_path)["n"] == 1


def test_a_full_disk_is_a_checkpoint_error_and_the_previous_one_stays(tmp_path):
    """A limit on the size of files stands for the full disk."""
    code = """
        import resource, signal, sys
        import numpy as np
        from pathlib import Path
        from distsearch.core import checkpoint
        from distsearch.errors import CheckpointError
        folder = Path(sys.argv[1])
        checkpoint.save({"epoch": 1}, folder, 1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            checkpoint.save({"w": np.ones(1 << 16)}, folder, 2)
        except CheckpointError as error:
            print(error, f"errno {error.__cause__.errno}")
        print(checkpoint.load(folder), len(list(folder.iterdir())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert "step 2 could not be written" in done.stdout, done.stderr
    assert "the previous one is still there" in done.stdout
    assert f"errno {errno.EFBIG}" in done.stdout, "by which such a failure is told from others"
    assert done.stdout.endswith("{'epoch': 1} 1\n")


def test_what_is_kept_is_private(tmp_path):
    path = checkpoint.save({"epoch": 1}, tmp_path / "kept", 1)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("steps", "logged", "left"),
    [([1, 2], 2, [1, 2]), ([1, 2], 1, [1]), ([5, 1], 1, [5, 1]), ([8, 9], 3, [8]), ([1], None, [])],
)
def test_rolling_back_leaves_what_was_saved_up_to_the_logged_step(tmp_path, steps, logged, left):
    for step in steps:
        checkpoint.save({"epoch": step}, tmp_path, step)
    delete_newer(tmp_path, logged)
    assert [int(path.name.rpartition("-")[2]) for path in checkpoint.checkpoints(tmp_path)] == left


def test_no_name_at_all_is_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CheckpointError, match="'' is no file and no folder"):
        checkpoint.save("", tmp_path / "kept", 1)


@pytest.mark.parametrize("how", ["itself", "around it", "in a circle"])
def test_a_folder_whose_copy_would_have_no_end_is_refused_and_nothing_is_left(tmp_path, how):
    mine, kept = tmp_path / "mine", tmp_path / "mine" / "kept"
    kept.mkdir(parents=True)
    (mine / "weights.txt").write_text("1")
    if how == "in a circle":
        kept = tmp_path / "kept"
        for name in ("one", "two"):
            (mine / name).symlink_to(mine)
    with pytest.raises(CheckpointError, match=r"itself|themselves|around it"):
        checkpoint.save(tmp_path if how == "around it" else mine, kept, 1)
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "files/pipe", "files/none"])
def test_a_manifest_that_names_what_is_no_file_of_its_checkpoint_is_damage(tmp_path, name):
    path = checkpoint.save({"a": 1}, tmp_path / "kept", 1)
    (tmp_path / "secret").write_text("s")
    (path / "files").mkdir()
    os.mkfifo(path / "files" / "pipe")
    manifest = checkpoint.manifest_of(path)
    manifest["files"][name] = {"bytes": 0, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(RuntimeWarning, match="is no file of it"):
        assert checkpoint.load(tmp_path / "kept") is None


@pytest.mark.parametrize("keep", [1, 2])
def test_however_fast_a_trial_saves_it_keeps_the_one_before_all_that_the_log_may_not_know(
    tmp_path, keep
):
    checkpoint.save({"epoch": 1}, tmp_path, 1, attempt=1, keep=keep)
    young = []
    for step in (2, 3, 4):  # the driver is killed before it has logged any of these
        made = checkpoint.save({"epoch": step}, tmp_path, step, attempt=2, keep=keep, young=young)
        young.append(made.name)
    delete_newer(tmp_path, 1)
    assert checkpoint.load(tmp_path) == {"epoch": 1}


def test_a_trial_that_saves_slowly_keeps_no_more_than_it_is_to(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save({"epoch": step}, tmp_path, step, keep=2, young=[])
    assert [path.name[-1] for path in sorted(tmp_path.glob("*-step-*"))] == ["3", "4"]


def test_where_no_thread_can_be_started_a_checkpoint_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    checkpoint.save({"w": np.arange(3), "epoch": 1}, tmp_path, 1)
    assert checkpoint.load(tmp_path)["epoch"] == 1
