"""Log-in with a password, and log-out."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from phantoms_dagster.desk import passwords
from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.pages import oidc
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import CurrentVisit, Form, field, local_path, log_in, log_out


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/login", include_in_schema=False)(ask)
    app.post("/login", include_in_schema=False)(check)
    app.post("/logout", include_in_schema=False)(leave)


def ask(visit: CurrentVisit, next: str = "/") -> Response:  # noqa: A002 - the name of the parameter in the address
    """Show the log-in form."""
    if visit.role > Role.PUBLIC:
        return RedirectResponse(local_path(next), 303)
    there = visit.desk.oidc.host if visit.desk.oidc is not None and oidc.back_from_log_out(visit) else ""
    notice = f"You are logged out, here and at {there}." if there else ""
    return page(visit, "login.html", wanted=local_path(next), name="", problem="", notice=notice)


def check(visit: CurrentVisit, form: Form) -> Response:
    """Log in. A wrong name and a wrong password give the same message and take the same time."""
    name, password, wanted = field(form, "name"), str(form.get("password", "")), local_path(field(form, "next") or "/")
    attempts = visit.desk.attempts
    wait = attempts.wait_seconds(name, visit.address)
    if wait:
        problem = f"Too many failed attempts. Try again in {max(1, round(wait / 60))} min."
        response = page(visit, "login.html", status=429, wanted=wanted, name=name, problem=problem, notice="")
        response.headers["Retry-After"] = str(wait)
        return response
    user = visit.desk.users.credentials(name)
    # A user who logs in through the provider has no password here. That counts as a wrong password.
    if not passwords.verify_password(user.password_hash if user else None, password) or user is None or user.password_hash is None:
        attempts.failed(name, visit.address)
        problem = "The name or the password is wrong."
        return page(visit, "login.html", status=401, wanted=wanted, name=name, problem=problem, notice="")
    attempts.succeeded(name, visit.address)
    if passwords.needs_rehash(user.password_hash):
        visit.desk.users.rehash(user.id, passwords.hash_password(password))
    there = RedirectResponse(wanted, 303)
    log_in(visit, user, there)
    oidc.forget(there)
    return there


def leave(visit: CurrentVisit) -> Response:
    """Log out of the desk, and then at the provider when the user logged in there."""
    response = RedirectResponse("/login", 303)
    log_out(visit, response)
    return oidc.log_out_there(visit, response)
