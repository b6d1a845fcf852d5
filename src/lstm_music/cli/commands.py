"""The names of the commands."""

COMMANDS = (
    "train",
    "sample",
    "harmonize",
    "corpus",
    "evaluate",
    "figures",
    "report",
    "listen",
    "play",
    "reproduce",
    "completion",
)
LONG = ("train", "reproduce")  # which are run for what they keep, not for what they print
