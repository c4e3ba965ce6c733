"""The services of one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phantoms_dagster.cli.console import current, plain_errors
from phantoms_dagster.wiring import Services


@contextmanager
def opened_services() -> Iterator[Services]:
    """Open the services, and close them at the end. Expected errors become messages (see `console.plain_errors`)."""
    with plain_errors():
        services = Services(current())
        try:
            yield services
        finally:
            services.close()
