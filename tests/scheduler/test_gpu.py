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
from distsearch.scheduler import Launch, PBTScheduler
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
    @ag.args(folder=str(tmp_path))
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


def test_a_child_loads_what_its_parent_trained_on_the_gpu_bit_by_bit(search):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        import torch

        def digest(state):
            return state["w"].double().sum().item(), str(state["h"].dtype), state["step"]

        state = reporter.load()
        if state is None:
            torch.manual_seed(args.task_id)
            weights = torch.randn(1000, 300, device="cuda")
            state = {"w": weights, "h": weights[:3].bfloat16().t(), "step": 7}
            reporter.save(state, step=7)
        on_gpu = {key: v.cuda() if key != "step" else v for key, v in state.items()}
        reporter(epoch=1, accuracy=1.0, digest=digest(on_gpu), at=str(state["w"].device))

    resource = {"num_cpus": 1, "num_gpus": 1}
    scheduler = search(train_fn, resource=resource, searcher=Children())
    scheduler.run(num_trials=3)
    scheduler.join_jobs(120)
    father, *children = reports_of(scheduler)
    assert father["at"] == "cuda:0"
    assert [child["digest"] for child in children] == [father["digest"]] * 2
    assert {child["at"] for child in children} == {"cpu"}  # from where it goes wherever it should


def test_pbt_goes_on_from_checkpoints_of_optimizers_on_the_gpu(search):
    @ag.args(lr=ag.Real(1e-4, 1e-1, log=True))
    def train_fn(args, reporter):
        import torch

        torch.manual_seed(0)
        model = torch.nn.Linear(20, 1, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
        first = 1
        if state := reporter.load():
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            for group in optimizer.param_groups:
                group["lr"] = args.lr
            first = state["epoch"] + 1
        inputs = torch.randn(512, 20, device="cuda")
        labels = inputs.sum(1, keepdim=True)
        for epoch in range(first, 7):
            for _ in range(20):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(inputs), labels)
                loss.backward()
                optimizer.step()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            reporter.save({**state, "epoch": epoch}, step=epoch)
            reporter(epoch=epoch, accuracy=-loss.item())

    scheduler = search(
        train_fn,
        PBTScheduler,
        resource={"num_cpus": 1, "num_gpus": 0.25},
        population_size=4,
        perturbation_interval=2,
        max_t=6,
    )
    scheduler.run()
    scheduler.join_jobs(180)
    assert not [trial.error for trial in scheduler.trials if trial.error]
    assert any(trial.parents for trial in scheduler.trials), "nobody went on from another"
    assert max(report["epoch"] for report in reports_of(scheduler)) == 6


@pytest.mark.parametrize("end", ["hangs", "segfault", "out of memory"])
def test_whatever_ends_a_trial_its_memory_on_the_gpu_is_free_again(search, end):
    @ag.args(end=end, size=2 << 30)
    def train_fn(args, reporter):
        import ctypes

        import torch

        held = torch.ones(args.size, dtype=torch.uint8, device="cuda")
        reporter(epoch=1, accuracy=float(held[-1]))
        if args.end == "hangs":
            time.sleep(60)
        if args.end == "segfault":
            ctypes.string_at(0)
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")

    before = used_bytes()
    resource = {"num_cpus": 1, "num_gpus": 1}
    scheduler = search(train_fn, resource=resource, trial_timeout=8, max_failures=0)
    scheduler.run(num_trials=2)  # the second one comes only after the first one's end
    with contextlib.suppress(SearchFailed):  # as both fail alike
        scheduler.join_jobs(120)
    names = {"hangs": "TIMED_OUT", "segfault": "KILLED", "out of memory": "OUT_OF_MEMORY"}
    assert {trial.status.name for trial in scheduler.trials} == {names[end]}
    assert used_bytes() < before + 500 * MB
