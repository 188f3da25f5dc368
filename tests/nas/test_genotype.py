"""A genotype is found by name, file or folder; what is none is refused with what it has."""

from __future__ import annotations

import json

import pytest

from distsearch.errors import SpaceError
from distsearch.nas.genotype import NAMED, find
from distsearch.nas.lanas import ranking

PUBLISHED = NAMED["pc-darts-cifar10"]


def test_a_genotype_that_was_saved_is_found_by_its_file_and_by_its_folder(tmp_path):
    path = PUBLISHED.save(tmp_path)
    assert find(path) == find(tmp_path) == find("pc-darts-cifar10") == PUBLISHED
    assert [entry.name for entry in tmp_path.iterdir()] == ["genotype.json"]


def test_what_is_written_into_a_searchs_folder_is_for_nobody_else_and_follows_no_link(tmp_path):
    thesis, folder = tmp_path / "thesis", tmp_path / "search"
    thesis.write_text("all of it")
    folder.mkdir()
    for name in ("genotype.json", "genotype.part", "results.json", "results.csv", "results.part"):
        (folder / name).symlink_to(thesis)
    made = [PUBLISHED.save(folder), *ranking.write([], folder)]
    assert thesis.read_text() == "all of it"
    assert [path.lstat().st_mode & 0o777 for path in made] == [0o600] * 3


def test_an_unknown_name_is_told_with_the_nearest_and_a_folder_without_one_as_such(tmp_path):
    with pytest.raises(SpaceError, match=r"did you mean 'pc-darts-cifar10'\?"):
        find("pc-darts-cifar")
    with pytest.raises(SpaceError, match=r"has no genotype\.json"):
        find(tmp_path)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda of: of.pop("reduce"), "is damaged, it has no reduce"),
        (lambda of: of.update(space="nasnet"), "space 'nasnet', not of 'pc-darts'"),
        (lambda of: of["normal"].pop(), "has to be a list of 8 edges"),
        (lambda of: of["normal"][3].pop(), r"edge 3 of normal .* not \['dil_conv_3x3'\]"),
        (lambda of: of["normal"][0].__setitem__(0, "sep_conv_7x7"), "did you mean 'sep_conv_"),
        (lambda of: of["reduce"][0].__setitem__(0, "none"), "has the operation 'none'; there are"),
        (lambda of: of["reduce"][1].__setitem__(1, 2), "reads 2, but its node can read 0 to 1"),
        (lambda of: of.update(reduce_concat=[7]), r"concat of reduce .* is \[7\]"),
    ],
)
def test_a_damaged_genotype_is_refused_with_what_is_wrong(change, told, tmp_path):
    content = PUBLISHED.as_json()
    change(content)
    (tmp_path / "genotype.json").write_text(json.dumps(content))
    with pytest.raises(SpaceError, match=told):
        find(tmp_path)


@pytest.mark.parametrize("text, told", [("{", "no JSON"), ("[]", "a list"), ("\0", "no JSON")])
def test_a_file_that_is_no_genotype_is_refused(text, told, tmp_path):
    (tmp_path / "genotype.json").write_text(text)
    with pytest.raises(SpaceError, match=told):
        find(tmp_path / "genotype.json")
