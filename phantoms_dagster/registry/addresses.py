"""Addresses of services: which hosts are near, and which URLs may carry keys. Pure functions."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localhost")


def is_private(host: str) -> bool:
    """Whether the host is this machine or on a private network. A name without a dot is a container's or a local host's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".").casefold()
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_link_local


def service_url(given: str) -> str:
    """The URL of a service, unchanged. Raises ValueError unless it is https, or http to this machine or a private network."""
    try:
        parts = urlsplit(given)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ValueError("should be a URL that begins with https://")
    if parts.scheme == "http" and not is_private(host):
        raise ValueError(
            "should begin with https://, because keys are sent to it; http:// is only for this machine and private networks"
        )
    return given
