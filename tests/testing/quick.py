"""A plugin of pytest: to find a fault is enough; making its example small takes hypothesis long."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("quick", phases=[Phase.explicit, Phase.generate], derandomize=True)
settings.load_profile("quick")
