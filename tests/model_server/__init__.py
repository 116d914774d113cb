"""A model server for tests: it speaks the providers' wire formats, plays scripts and refuses what they refuse."""

from tests.model_server.scripts import Answer, Call, Fault, Part, Script, play_trajectory
from tests.model_server.server import ModelServer

__all__ = ["Answer", "Call", "Fault", "ModelServer", "Part", "Script", "play_trajectory"]
