"""Who works at this machine, as decisions and the audit log name them."""

import getpass
import os


def this_user() -> str:
    """The name of the system's user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
