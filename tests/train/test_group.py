"""The process group that a train function joins."""

from __future__ import annotations

import os

import pytest

from distsearch.errors import ResourceError
from distsearch.train import process_group
from distsearch.train.group import ALONE

torch = pytest.importorskip("torch")


@pytest.fixture
def no_variables(monkeypatch):
    for name in ALONE:
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_a_group_of_one_and_leaves_no_variables_behind(no_variables):
    with process_group() as device:
        assert device.type in ("cpu", "cuda")
        total = torch.ones(2, device=device)
        torch.distributed.all_reduce(total)
        assert total.tolist() == [1, 1] and torch.distributed.get_world_size() == 1
        assert os.environ["WORLD_SIZE"] == "1"
    assert not torch.distributed.is_initialized()
    assert not any(name in os.environ for name in ALONE)


def test_the_group_is_left_when_the_trial_ends_badly(no_variables):
    with pytest.raises(ValueError, match="boom"), process_group():
        raise ValueError("boom")
    assert not torch.distributed.is_initialized()
    assert "RANK" not in os.environ


def test_variables_that_somebody_has_set_are_never_overwritten(no_variables, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.7")
    with (
        pytest.raises(ResourceError, match=r"MASTER_ADDR are set, MASTER_PORT, RANK, .* not"),
        process_group(),
    ):
        pass
    assert os.environ["MASTER_ADDR"] == "10.0.0.7"
    assert "RANK" not in os.environ


def test_ranks_that_would_share_a_gpu_are_refused_with_the_reason(no_variables, monkeypatch):
    for name, value in {**ALONE, "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ResourceError, match="two would share one, which NCCL refuses"),
        process_group(),
    ):
        pass
