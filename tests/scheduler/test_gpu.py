"""What only a real GPU can show: leases, sharing, forks, checkpoints, memory. Skipped without one.

On the GPU's machine: `make test ARGS=tests/scheduler/test_gpu.py`.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

import distsearch as ag
from distsearch.errors import ResourceError, SearchFailed
from distsearch.resource.detect import detect
from distsearch.scheduler import Launch
from distsearch.searcher import Searcher

GPUS = detect().gpus
pytestmark = pytest.mark.skipif(not GPUS, reason="needs a machine with an NVIDIA GPU")
MB = 1 << 20


def used_bytes():
    """The memory that all processes together use on the GPUs."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return sum(pynvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles)
    finally:
        pynvml.nvmlShutdown()


@ag.args(x=ag.Real(0, 1))
def sees(args, reporter):
    """Tell which GPUs the trial has, and compute on the first."""
    import torch

    total = 0.0
    if torch.cuda.is_available():
        torch.manual_seed(1)
        matrix = torch.randn(64, 64, device="cuda", dtype=torch.float64)
        total = (matrix @ torch.linalg.inv(matrix)).trace().item()
    reporter(
        epoch=1,
        accuracy=args.x,
        total=round(total, 6),
        devices=torch.cuda.device_count(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        gpu_ids=list(args.gpu_ids),
    )


def reports_of(scheduler):
    return [reports[-1] for reports in scheduler.training_history.values()]


@pytest.mark.parametrize("options", [{}, {"isolation": "reuse"}, {"start_method": "spawn"}])
def test_trials_compute_on_the_gpu_that_they_were_leased_and_see_no_other(search, options):
    scheduler = search(sees, resource={"num_cpus": 1, "num_gpus": 1}, **options)
    scheduler.run(num_trials=3)
    scheduler.join_jobs(120)
    assert [trial.status.name for trial in scheduler.trials] == ["FINISHED"] * 3
    for report in reports_of(scheduler):
        assert (report["devices"], report["total"]) == (1, 64.0)
        assert report["visible"] in GPUS
        assert report["gpu_ids"] == [report["visible"]]


def test_trials_that_asked_for_no_gpu_see_none(search):
    scheduler = search(sees, resource={"num_cpus": 1, "num_gpus": 0})
    scheduler.run(num_trials=2)
    scheduler.join_jobs(120)
    assert [(report["devices"], report["total"]) for report in reports_of(scheduler)] == [
        (0, 0)
    ] * 2


def test_four_trials_at_a_time_share_a_gpu(search, tmp_path):
    @ag.args(x=ag.Real(0, 1), folder=str(tmp_path))
    def train_fn(args, reporter):
        import torch

        ones = torch.ones(MB, device="cuda")
        (Path(args.folder) / f"here-{args.task_id}").touch()
        deadline = time.monotonic() + 60
        while len(list(Path(args.folder).glob("here-*"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        together = len(list(Path(args.folder).glob("here-*")))
        reporter(epoch=1, accuracy=ones.sum().item(), together=together, gpu=args.gpu_ids)

    scheduler = search(train_fn, resource={"num_cpus": 1, "num_gpus": 0.25 * len(GPUS)})
    scheduler.run(num_trials=4)
    scheduler.join_jobs(120)
    reports = reports_of(scheduler)
    assert [(report["together"], report["accuracy"]) for report in reports] == [(4, MB)] * 4


def test_more_gpus_than_any_node_has_are_refused_at_once(search):
    with pytest.raises(ResourceError, match=rf"{len(GPUS)} GPU"):
        search(sees, resource={"num_cpus": 1, "num_gpus": len(GPUS) + 1}).run(num_trials=1)


class Children(Searcher):
    """One father, then children of his."""

    def suggest(self, trial_id, rng):
        config = self.space.sample(rng)
        return Launch(config, parents=(0,)) if trial_id else config


def test_a_child_goes_on_on_the_gpu_exactly_where_its_parent_was(search):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        import torch

        torch.manual_seed(0)
        inputs = torch.randn(512, 20, device="cuda")
        labels = inputs.sum(1, keepdim=True)
        model = torch.nn.Linear(20, 1, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def train(steps):
            for _ in range(steps):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(inputs), labels)
                loss.backward()
                optimizer.step()
            return loss.item()

        state = reporter.load()
        if state is None:
            train(20)
            half = inputs[:3].bfloat16().t()  # another type, and not contiguous
            state = {"model": model.state_dict(), "half": half, "step": 20}
            reporter.save({**state, "optimizer": optimizer.state_dict()}, step=20)
        else:
            assert {tensor.device.type for tensor in state["model"].values()} == {"cpu"}
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        half = state["half"].to("cuda")
        same = half.dtype == torch.bfloat16 and bool((half == inputs[:3].bfloat16().t()).all())
        reporter(epoch=1, accuracy=-train(10), same=same, step=state["step"])

    resource = {"num_cpus": 1, "num_gpus": 1}
    scheduler = search(train_fn, resource=resource, searcher=Children(train_fn.space))
    scheduler.run(num_trials=3)
    scheduler.join_jobs(120)
    assert [trial.parents for trial in scheduler.trials] == [(), (0,), (0,)]
    father, *children = [(r["accuracy"], r["same"], r["step"]) for r in reports_of(scheduler)]
    assert father[1:] == (True, 20)
    assert children == [father] * 2


@pytest.mark.parametrize("end", ["hangs", "segfault", "out of memory"])
def test_whatever_ends_a_trial_its_memory_on_the_gpu_is_free_again(search, end):
    @ag.args(x=ag.Real(0, 1), end=end, size=2 << 30)
    def train_fn(args, reporter):
        import ctypes

        import torch

        held = torch.ones(args.size, dtype=torch.uint8, device="cuda")
        reporter(epoch=1, accuracy=float(held[-1]))
        if args.end == "hangs":
            time.sleep(300)
        if args.end == "segfault":
            ctypes.string_at(0)
        torch.empty(1 << 45, dtype=torch.uint8, device="cuda")

    before = used_bytes()
    resource = {"num_cpus": 1, "num_gpus": 1}
    # CUDA's own start takes seconds, more where others start too.
    limit_s = {"report_timeout": 15} if end == "hangs" else {}
    scheduler = search(train_fn, resource=resource, max_failures=0, **limit_s)
    scheduler.run(num_trials=2)  # the second one comes only after the first one's end
    with contextlib.suppress(SearchFailed):  # as both fail alike
        scheduler.join_jobs(120)
    names = {"hangs": "HUNG", "segfault": "KILLED", "out of memory": "OUT_OF_MEMORY"}
    assert {trial.status.name for trial in scheduler.trials} == {names[end]}
    assert used_bytes() < before + 500 * MB
