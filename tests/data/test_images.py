"""Images are loaded by name and from folders; what cannot be learned from is refused."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest

from distsearch.data import facts_of, load_images
from distsearch.data.images import load_for_generation
from distsearch.errors import DataError, MissingPackage

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")


def draw(path, size=(8, 8), mode="L", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def pets(tmp_path):
    folder = tmp_path / "pets"
    for number in range(5):
        draw(folder / "cat" / f"{number}.png", value=10)
        draw(folder / "dog" / f"{number}.png", value=200)
    return folder


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 9, 7), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (6, 9, 7), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }

    def write(name="mnist.npz", **others):
        everything = {**arrays, **others}
        np.savez(tmp_path / name, **{k: v for k, v in everything.items() if v is not None})
        return tmp_path / name

    return write


def test_the_digits_are_there_without_a_file_and_always_split_alike():
    images = load_images("digits")
    assert images.facts == facts_of("digits")
    assert images.train.dtype == torch.uint8
    assert images.train.max() == 255
    assert torch.equal(images.test, load_images("digits").test)
    assert images.test_labels.bincount().min() >= 34  # a fifth of every digit


def test_a_folder_of_classes_becomes_images_of_which_a_fifth_of_each_is_for_testing(pets):
    (pets / "README.md").write_text("no image")
    images = load_images(pets)
    assert images.classes == ("cat", "dog")
    assert images.facts == facts_of(pets)
    assert sorted(images.test_labels.tolist()) == [0, 1]
    assert images.train[images.train_labels == 1].unique().tolist() == [200]


def test_train_and_test_folders_are_kept_apart_also_in_a_tar_file(pets, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(pets, folder / "train")
    draw(folder / "test/cat/a.png", value=11)
    draw(folder / "test/dog/a.png", value=201)
    with tarfile.open(tmp_path / "both.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=".")
    images = load_images(folder)
    packed = load_images(tmp_path / "both.tar.gz")
    assert len(images.train) == 10
    assert images.test.flatten(1)[:, 0].tolist() == [11, 201]
    assert packed.name == "both"
    assert torch.equal(packed.test.sort(0).values, images.test)
    assert packed.facts == facts_of(tmp_path / "both.tar.gz") == images.facts


def test_an_npz_file_is_found_by_path_by_root_and_by_the_environment(npz, tmp_path, monkeypatch):
    path = npz()
    facts = facts_of(path)
    assert (facts.shape, facts.train, facts.test, facts.classes) == (
        (1, 9, 7),
        30,
        6,
        ("0", "1", "2"),
    )
    images = load_images("mnist", root=tmp_path)
    assert images.facts == facts
    monkeypatch.setenv("DISTSEARCH_DATA", str(tmp_path))
    assert torch.equal(load_images("mnist").train, images.train)


def test_colours_of_an_npz_file_come_first(npz):
    path = npz(x_train=np.zeros((30, 9, 7, 3), np.uint8), x_test=np.ones((6, 9, 7, 3), np.uint8))
    assert load_images(path).shape == facts_of(path).shape == (3, 9, 7)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(DataError, match=r"no data set 'cifar-10'.*did you mean 'cifar10'\?"):
        facts_of("cifar-10")


@pytest.mark.parametrize("root, told", [(None, "DISTSEARCH_DATA"), ("here", "holds no cifar10")])
def test_a_named_set_that_is_not_there_is_never_downloaded(root, told, tmp_path, monkeypatch):
    monkeypatch.delenv("DISTSEARCH_DATA", raising=False)
    with pytest.raises(DataError, match=told):
        facts_of("cifar10", root=root and tmp_path)


def test_a_downloaded_set_needs_torchvision_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="torchvision"):
        facts_of("cifar10", root=tmp_path)


def test_a_downloaded_set_is_read_by_torchvision(tmp_path):
    pytest.importorskip("torchvision")
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        sizes = np.array([count, 28, 28], ">i4").tobytes()
        pixels = np.full((count, 28, 28), 9, np.uint8).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels)
        labels = np.arange(count, dtype=np.uint8).tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels)
    images = load_images("fashion-mnist", root=tmp_path)
    assert images.train.shape == (5, 1, 28, 28)
    assert images.classes[9] == "Ankle boot"
    assert images.test_labels.tolist() == [0, 1, 2]


def test_a_downloaded_set_that_is_not_whole_is_refused_when_it_loads(tmp_path):
    pytest.importorskip("torchvision")
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert facts_of("cifar10", root=tmp_path).train == 50_000
    with pytest.raises(DataError, match="cannot be read"):
        load_images("cifar10", root=tmp_path)


def test_folders_that_nothing_can_be_learned_from_are_refused_with_what_is_there(pets, tmp_path):
    def refused(match):
        with pytest.raises(DataError, match=match):
            facts_of(pets)

    with pytest.raises(DataError, match="has no classes"):
        (tmp_path / "empty").mkdir()
        facts_of(tmp_path / "empty")
    with pytest.raises(DataError, match=r"1 class \(cat\)"):
        shutil.copytree(pets / "cat", tmp_path / "one/cat")
        facts_of(tmp_path / "one")
    draw(pets / "dog/wide.png", size=(9, 8))
    refused("differ: cat/0.png has 8 x 8 pixels with 1 channel, dog/wide.png has 9 x 8")
    draw(pets / "dog/wide.png", mode="RGB")
    refused("dog/wide.png has 8 x 8 pixels with 3 channels")
    draw(pets / "dog/wide.png", mode="RGBA")
    refused("kind 'RGBA'; convert it")
    (pets / "dog/wide.png").write_text("no image")
    refused("wide.png in .* is no image")
    (pets / "dog/wide.png").unlink()
    draw(pets / "loose.png")
    refused("loose.png in .* is in no folder of a class")


def test_a_class_without_test_images_is_refused(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "parts/train")
    shutil.copytree(pets / "cat", tmp_path / "parts/test/cat")
    with pytest.raises(DataError, match="no images of 'dog' in test/"):
        facts_of(tmp_path / "parts")


@pytest.mark.parametrize(
    "change, told",
    [
        ({"y_test": None}, "has no y_test, but x_test, x_train, y_train"),
        ({"y_test": np.arange(5) % 3}, "has 6 images x_test, y_test has 5"),
        ({"x_train": np.zeros((30, 9, 7))}, "x_train is float64"),
        ({"x_test": np.zeros((6, 9, 8), np.uint8)}, "all have to be alike"),
        ({"y_train": np.arange(30) % 3 + 5}, "labels 0, 1, 2, 5, 6, 7"),
    ],
)
def test_an_npz_file_of_something_else_is_refused_with_what_it_has(npz, change, told):
    with pytest.raises(DataError, match=told):
        facts_of(npz(**change))


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    (tmp_path / "bad.txt").write_text("x")
    for name, told in (("bad.npz", "npz"), ("bad.tar", "as a tar file"), ("bad.txt", "no folder")):
        with pytest.raises(DataError, match=told):
            facts_of(tmp_path / name)


def test_images_in_one_folder_have_no_classes_for_those_who_need_none(tmp_path):
    for number in range(5):
        draw(tmp_path / "img" / f"{number}.png")
    images = load_for_generation(tmp_path)
    assert (images.classes, len(images.train), len(images.test)) == ((), 4, 1)
    assert images.train_labels.tolist() == [-1] * 4
    draw(tmp_path / "img" / "large.png", size=(9, 9))
    with pytest.raises(DataError, match="make all alike"):
        load_for_generation(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:load", "no_such_module cannot be imported"),
        ("json:lods", "did you mean 'loads'"),
        ("time:time", "return uint8 images"),
        ("json:dumps", "cannot be called without arguments: missing a required"),
    ],
)
def test_a_function_that_gives_no_images_is_refused(name, says):
    with pytest.raises(DataError, match=says):
        load_for_generation(name)
