"""The current user of this machine, for decisions and the audit log."""

import getpass
import os


def this_user() -> str:
    """The name of the system user that runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        return f"uid {os.getuid()}"
