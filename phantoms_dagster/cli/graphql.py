"""GraphQL calls to the API of the Dagster UI."""

from __future__ import annotations

import time
from typing import Any

import httpx

from phantoms_dagster.domain.errors import PhantomsError

_LAUNCH = """
mutation Launch($job: String!) {
  launchRun(executionParams: {selector: {repositoryLocationName: "phantoms", repositoryName: "__repository__", jobName: $job},
      runConfigData: {}, mode: "default"}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""

_STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
POLL_SECONDS = 0.5


class DagsterRefused(PhantomsError):
    """Dagster's API refused a request, or a job failed."""


def ask(web_url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Make one GraphQL call and return its data. Raises DagsterRefused and httpx.HTTPError."""
    answer = httpx.post(f"{web_url}/graphql", json={"query": query, "variables": variables}, timeout=60, trust_env=False)
    body: dict[str, Any] = answer.json()
    if "errors" in body:
        raise DagsterRefused(str(body["errors"][0].get("message", body["errors"])))
    data: dict[str, Any] = body["data"]
    return data


def launch_job(web_url: str, job: str, *, timeout: float) -> str:
    """Launch a job, wait up to `timeout` seconds for its success, and return its run id. Raises DagsterRefused."""
    launched = ask(web_url, _LAUNCH, {"job": job})["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise DagsterRefused(f"{job} could not be launched: {launched.get('message') or launched['__typename']}")
    run_id: str = launched["run"]["runId"]
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        status = ask(web_url, _STATUS, {"id": run_id})["runOrError"].get("status")
        if status == "SUCCESS":
            return run_id
        if status in ("FAILURE", "CANCELED"):
            raise DagsterRefused(f"{job} ended with {status}; see {web_url}/runs/{run_id}")
        time.sleep(POLL_SECONDS)
    raise DagsterRefused(f"{job} did not end within {timeout:.0f} s; see {web_url}/runs/{run_id}")
