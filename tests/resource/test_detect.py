"""Detection: cgroup files as Linux writes them, and a fake of NVML."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from distsearch.errors import ResourceError
from distsearch.resource import detect as detect_module
from distsearch.resource.detect import declared, detect, machine_id
from distsearch.resource.node import Node, NodeFacts

GPU_A, GPU_B = "GPU-aaaa1111-0", "GPU-bbbb2222-0"
MIG_1, MIG_2 = "MIG-cccc3333-0", "MIG-dddd4444-0"


class NVMLError(Exception):
    """The fake's error."""


def fake_nvml(*gpus, lost=()):
    """A fake of the module pynvml with GPUs given as UUID, or as (UUID, [UUIDs of slices])."""
    gpus = [(gpu, []) if isinstance(gpu, str | bytes) else gpu for gpu in gpus]
    closed = []

    def handle(index):
        if index in lost:
            raise NVMLError("GPU is lost")
        return gpus[index]

    def mode(gpu):
        if not gpu[1]:
            raise NVMLError("Not Supported")
        return (1, 1)

    def piece(gpu, index):
        if index >= len(gpu[1]):
            raise NVMLError("Not Found")
        return (gpu[1][index], [])

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: closed.append(True),
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetUUID=lambda gpu: gpu[0],
        nvmlDeviceGetMigMode=mode,
        nvmlDeviceGetMaxMigDeviceCount=lambda gpu: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=piece,
        closed=closed,
    )


def on_a_machine(nvml, visible=None, cgroups=None, own_cgroups=None):
    """What is detected with this module pynvml, CUDA_VISIBLE_DEVICES, and cgroup files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", nvml)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        if cgroups is not None:
            patch.setattr(detect_module, "CGROUPS", cgroups)
            patch.setattr(detect_module, "OWN_CGROUPS", own_cgroups)
        return detect()


def gpus_of(nvml, visible=None):
    return on_a_machine(nvml, visible).gpus


@pytest.fixture
def limits(tmp_path):
    """Detect with the cgroup files that are given as {path: text}, in the groups of `own`."""

    def found(own, files):
        for path, text in files.items():
            file = tmp_path / "cgroup" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        (tmp_path / "own").write_text(own + "\n")
        return on_a_machine(fake_nvml(), cgroups=tmp_path / "cgroup", own_cgroups=tmp_path / "own")

    return found


AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
TOTAL = psutil.virtual_memory().total


def test_without_cgroups_it_is_the_affinity_and_the_physical_memory(tmp_path):
    facts = on_a_machine(fake_nvml(), cgroups=tmp_path, own_cgroups=tmp_path / "none")
    assert facts == NodeFacts(AFFINITY, (), TOTAL, machine_id())


def test_v2_limits_hold_and_are_rounded_up(limits):
    facts = limits("0::/job", {"job/cpu.max": "50000 100000", "job/memory.max": "1000000"})
    assert (facts.num_cpus, facts.memory_bytes) == (1, 1000000)
    assert limits("0::/job", {"job/cpu.max": "150000 100000"}).num_cpus == min(2, AFFINITY)


def test_v2_limits_of_the_groups_around_hold_too(limits):
    files = {
        "memory.max": "max",
        "slurm/memory.max": "2000000",
        "slurm/job/memory.max": "max",
        "slurm/cpu.max": "100000 100000",
        "slurm/job/cpu.max": "max 100000",
    }
    facts = limits("0::/slurm/job", files)
    assert (facts.num_cpus, facts.memory_bytes) == (1, 2000000)


@pytest.mark.parametrize("own", ["0::/", "0::/../../outside", "0::/unseen/deep"])
def test_inside_a_container_the_root_counts(limits, own):
    facts = limits(own, {"memory.max": "3000000", "cpu.max": "1000 100000"})
    assert (facts.num_cpus, facts.memory_bytes) == (1, 3000000)


def test_v1_limits_hold(limits):
    own = "5:memory:/docker/7f\n4:cpu,cpuacct:/docker/7f\n1:name=systemd:/docker/7f"
    files = {
        "memory/docker/7f/memory.limit_in_bytes": "4000000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "cpu,cpuacct/docker/7f/cpu.cfs_quota_us": "100000",
        "cpu,cpuacct/docker/7f/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    facts = limits(own, files)
    assert (facts.num_cpus, facts.memory_bytes) == (1, 4000000)


def test_a_limit_above_the_machine_changes_nothing(limits):
    files = {"cpu.max": "99900000 100000", "memory.max": str(10**18)}
    assert limits("0::/", files) == NodeFacts(AFFINITY, (), TOTAL, machine_id())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_limits_the_cpus():
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        assert on_a_machine(fake_nvml()).num_cpus == 1
    finally:
        os.sched_setaffinity(0, own)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, ("0", "1")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("1", ("1",)),
        ("1, 0", ("1", "0")),
        ("0,0,1", ("0", "1")),
        ("0,7,1", ("0",)),
        ("1,-1,0", ("1",)),
        (GPU_B, (GPU_B,)),
        ("GPU-bbbb", ("GPU-bbbb",)),
        ("GPU-", ()),
        ("GPU-unknown", ()),
        (f"{GPU_B},{GPU_A}", (GPU_B, GPU_A)),
    ],
)
def test_gpus_are_those_that_cuda_would_use_named_alike(visible, gpus):
    assert gpus_of(fake_nvml(GPU_A, GPU_B), visible) == gpus


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, (MIG_1, MIG_2, GPU_B)),
        ("0", ("0",)),
        (f"{MIG_2},{MIG_1}", (MIG_2, MIG_1)),
        ("MIG-cccc", ("MIG-cccc",)),
    ],
)
def test_slices_of_a_gpu_are_gpus(visible, gpus):
    assert gpus_of(fake_nvml((GPU_A, [MIG_1, MIG_2]), GPU_B), visible) == gpus


def test_a_lost_gpu_does_not_hide_the_others():
    nvml = fake_nvml(GPU_A, GPU_B, lost=[0])
    assert gpus_of(nvml) == ("1",)
    assert nvml.closed


def test_old_versions_of_nvml_answer_in_bytes():
    assert gpus_of(fake_nvml(GPU_A.encode()), GPU_A) == (GPU_A,)


def test_without_a_driver_there_are_no_gpus():
    nvml = fake_nvml(GPU_A)

    def no_driver():
        raise NVMLError("Library Not Found")

    nvml.nvmlInit = no_driver
    assert gpus_of(nvml) == gpus_of(nvml, "0") == ()


def test_the_real_nvml_does_no_harm_with_or_without_a_driver(monkeypatch):
    assert detect().num_cpus >= 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect().gpus == ()


FOUND = NodeFacts(8, ("GPU-a", "GPU-b"), 64 * 10**9)


def test_what_is_declared_stands_over_what_is_found():
    node = Node("h", num_cpus=4, num_gpus=1, memory_gb=2)
    assert declared(node, FOUND) == NodeFacts(4, ("GPU-a",), 2 * 10**9)
    assert declared(Node("h"), FOUND) == FOUND
    assert declared(Node("h", num_gpus=0), FOUND).gpus == ()


def test_gpus_may_be_declared_where_none_can_be_found():
    assert declared(Node("h", num_gpus=2), NodeFacts(8, (), 1)).gpus == ("0", "1")


def test_more_gpus_than_were_found_are_refused():
    with pytest.raises(ResourceError, match=r"'h' declares num_gpus=3, but has 2: GPU-a, GPU-b"):
        declared(Node("h", num_gpus=3), FOUND)


def test_a_machine_has_one_identity_and_its_containers_and_other_boots_have_others(
    tmp_path, monkeypatch
):
    installed, boot, namespace = (tmp_path / name for name in ("id", "boot", "ns"))
    monkeypatch.setattr(detect_module, "MACHINE_IDS", (tmp_path / "none", installed))
    monkeypatch.setattr(detect_module, "BOOT_ID", boot)
    monkeypatch.setattr(detect_module, "NAMESPACE", namespace)
    assert machine_id() == ""
    found = []
    for number in range(4):
        installed.write_text(f"m{number == 1}")
        boot.write_text(f"b{number == 2}")
        namespace.unlink(missing_ok=True)
        namespace.symlink_to(f"pid:[{number == 3}]")
        found.append(machine_id())
        assert machine_id() == found[-1] and "m" not in found[-1]
    assert len(set(found)) == 4
