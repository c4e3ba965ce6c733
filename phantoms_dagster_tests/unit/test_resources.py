"""The resources of the definitions: made once for a run, shared by all evaluations of a process."""

import dagster as dg
import pytest

from phantoms_dagster.defs import resources
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.checks import ChecksLeft
from phantoms_dagster.defs.resources import ServicesResource
from phantoms_dagster.wiring import Services

KEYS = {"services", "checks_left"}


def carry_out(looking: dg.OpDefinition) -> None:
    """A run of one op, with the resources of the real definitions."""
    given = build_definitions().resources
    job = dg.JobDefinition(graph_def=dg.GraphDefinition("look", node_defs=[looking]), resource_defs=None)
    assert dg.Definitions(jobs=[job], resources=given).resolve_job_def("look").execute_in_process().success


def test_a_run_makes_its_services_once_and_closes_them_after_its_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster makes a resource that another one contains a second time, with connections of its own, unless told otherwise."""
    made: list[Services] = []
    happened: list[str] = []
    from_environment, close, tell = Services.from_environment, Services.close, ChecksLeft.tell

    def making() -> Services:
        made.append(from_environment())
        return made[-1]

    def closing(services: Services) -> None:
        happened.append("closed")
        close(services)

    def telling(left: ChecksLeft) -> None:
        happened.append("checks told")
        tell(left)

    monkeypatch.setattr(Services, "from_environment", making)
    monkeypatch.setattr(Services, "close", closing)
    monkeypatch.setattr(ChecksLeft, "tell", telling)

    @dg.op(required_resource_keys=KEYS)
    def look(context: dg.OpExecutionContext) -> None:
        assert made == [context.resources.services]
        happened.append("step")

    carry_out(look)
    assert happened == ["step", "checks told", "closed"]


def test_evaluations_share_one_and_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_kept", None)
    monkeypatch.setattr(Services, "close", lambda _: pytest.fail("another evaluation may use it"))

    @dg.sensor(job_name="any")
    def looking(services: dg.ResourceParam[Services]) -> dg.SkipReason:
        seen.append(services)
        return dg.SkipReason("nothing")

    seen: list[Services] = []
    for _ in range(2):
        with dg.build_sensor_context(resources={"services": ServicesResource.configure_at_launch()}) as context:
            looking(context)
    assert seen[0] is seen[1]


def test_their_pages_say_what_they_are() -> None:
    for key, definition in build_definitions().get_repository_def().get_top_level_resources().items():
        assert definition.description, key
        assert "\n\n" not in definition.description.strip(), "an indented paragraph is shown as code"
