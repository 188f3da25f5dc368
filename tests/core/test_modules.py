"""Modules that a node lacks come with what puts them there, and never with a stranger's package."""

from __future__ import annotations

from distsearch.core.modules import lacking
from distsearch.core.travel import Packed

PACKED = Packed(b"", "name", (), "", {"helper": "/home/ada/helper.py"})


def test_a_package_is_named_with_the_version_that_the_driver_has():
    said = lacking(PACKED, "gpu1", ["numpy"])
    assert said.startswith("node gpu1 has no numpy, ") and "-m pip install 'numpy==" in said


def test_a_module_of_the_users_own_is_uploaded():
    said = lacking(PACKED, "gpu1", ["helper"])
    assert "upload_files(['/home/ada/helper.py'])" in said and "pip" not in said


def test_a_module_of_no_known_package_is_not_looked_for_in_an_index():
    said = lacking(PACKED, "gpu1", ["inhouse_tools"])
    assert "put inhouse_tools there" in said and "pip" not in said
