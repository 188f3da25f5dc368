"""Which images there are under a name or in a folder, and how they are loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError, suggest
from .arrays import Digits, Npz
from .functions import of_function
from .sets import SETS, Downloaded
from .source import Facts, Images, Source
from .tree import ARCHIVES, Tree, Unlabelled

ENVIRONMENT = "DISTSEARCH_DATA"  # the folder in which data sets lie, where none is given
NAMES = ("digits", "mnist", *(name for name in SETS if name != "mnist"))


def load_images(data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Images:
    """The images of a data set, by its name or where they lie.

        load_images("digits")                            # scikit-learn's, 8 x 8 pixels
        load_images("mnist", root="~/data")              # ~/data/mnist.npz, or torchvision's folder
        load_images("cifar10", root="~/data")            # as torchvision has downloaded it
        load_images("photos/")                           # photos/cat/*.png, photos/dog/*.png, ...
        load_images("cifar10-jpeg.tar.gz")               # train/cat/*.jpg, test/cat/*.jpg, ...

    `data`: one of NAMES, a folder or a tar file of images (a folder per class, perhaps below
    `train` and `test`), or an .npz file with x_train, y_train, x_test and y_test. `root`: the
    folder in which named data sets lie, by default that of the environment variable
    DISTSEARCH_DATA.

    What has no test part of its own is split: a fifth of every class, always the same, is for
    testing. Raises DataError for what is not there, or cannot be learned from; MissingPackage.
    """
    return find(data, root).load()


def load_for_generation(
    data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> Images:
    """Images for those who need no classes: what `load_images` takes, and more.

        load_for_generation("faces/")                    # faces/*.jpg: `classes` is ()
        load_for_generation("my_package.faces:load")     # what that function returns

    A function returns `Images`, or an array or tensor of uint8 images (count x channels x height x
    width), or a pair of these and their labels. Raises as `load_images` does.
    """
    if ":" in str(data):
        return of_function(str(data))
    path = Path(data).expanduser().absolute()
    if data not in NAMES and path.is_dir() and not Tree(path).has_classes:
        return Unlabelled(path).load()
    return load_images(data, root)


def facts_of(data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Facts:
    """What `load_images` would load: how many images, of which shape and classes.

    >>> facts_of("digits").shape
    (1, 8, 8)

    It loads no torch and keeps no image. Raises what `load_images` raises.
    """
    return find(data, root).facts()


def find(data: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Source:
    """Where the images of a name or a path come from; DataError for what is neither."""
    if data == "digits":
        return Digits()
    if data in NAMES:
        return _named(str(data), root)
    path = Path(data).expanduser().absolute()
    if path.is_dir() or (path.is_file() and path.name.endswith(ARCHIVES)):
        return Tree(path)
    if path.is_file() and path.suffix == ".npz":
        return Npz(path)
    if path.is_file():
        kinds = ", ".join((".npz", *ARCHIVES))
        raise DataError(f"{path} is no folder, and its name does not end in one of {kinds}")
    if os.sep in str(data) or path.suffix:
        raise DataError(
            f"there is no {path}; give the folder of the images, or one of {', '.join(NAMES)}"
        )
    raise DataError(
        f"there is no data set {str(data)!r}, nor a folder of that name here; "
        f"{suggest(str(data), NAMES)}"
    )


def _named(name: str, root: str | os.PathLike[str] | None) -> Source:
    """A known data set, wherever it lies below the root."""
    root = root or os.environ.get(ENVIRONMENT)
    if root is None:
        raise DataError(
            f"where does {name} lie? Give its folder (--data-root, root=, or the environment "
            f"variable {ENVIRONMENT}); only 'digits' comes with a package"
        )
    folder = Path(root).expanduser().absolute()
    if folder.is_file() and folder.suffix == ".npz":
        return Npz(folder)
    if not folder.is_dir():
        raise DataError(f"the root of {name} is {folder}, which is no folder")
    if (folder / f"{name}.npz").is_file():
        return Npz(folder / f"{name}.npz")
    for ending in (*ARCHIVES, *(f"-jpeg{ending}" for ending in ARCHIVES)):
        if (folder / f"{name}{ending}").is_file():
            return Tree(folder / f"{name}{ending}")
    downloaded = Downloaded(name, folder)
    if downloaded.is_there:
        return downloaded
    raise DataError(
        f"{folder} holds no {name}: neither {name}.npz, nor a tar file of images, nor "
        f"{downloaded.folder.relative_to(folder)} as torchvision downloads it; nothing is "
        "downloaded here, torchvision's own datasets classes do that"
    )
