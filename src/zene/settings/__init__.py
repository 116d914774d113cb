"""Settings: everything about an installation that two deployments may need to have different.

They are read with msgspec, which the domain needs anyway: importing pydantic-settings alone takes
about 0.2 s of a start that should take half a second.
"""

from zene.settings.loading import FILE_NAME, OTHER_VARIABLES, load
from zene.settings.values import TYPES, Model, Secret, Settings, variable

__all__ = [
    "FILE_NAME",
    "OTHER_VARIABLES",
    "TYPES",
    "Model",
    "Secret",
    "Settings",
    "load",
    "variable",
]
