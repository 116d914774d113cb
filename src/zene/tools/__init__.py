"""What the agent can do, through the operations it is handed.

The order of the tools is part of every request, so it never changes without need.
"""

from typing import Any

from zene.tools.base import Tool
from zene.tools.edit import EDIT_FILE
from zene.tools.files import LIST_FILES, READ_FILE, WRITE_FILE
from zene.tools.outputs import READ_OUTPUT
from zene.tools.plan import PLAN
from zene.tools.search import FIND_FILES, SEARCH_FILES
from zene.tools.shell import SHELL

TOOLS: tuple[Tool[Any], ...] = (
    SHELL,
    READ_FILE,
    WRITE_FILE,
    EDIT_FILE,
    LIST_FILES,
    FIND_FILES,
    SEARCH_FILES,
    READ_OUTPUT,
    PLAN,
)
