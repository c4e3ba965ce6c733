"""Platforms are registered by name: one line or one entry point adds one, and nothing else in the package knows its name."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from phantoms_dagster.domain import channels
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.platforms import BUILT_IN, register
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import PlatformSpec, WordRules
from phantoms_dagster.wiring.platforms import can

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "phantoms_dagster"
SOURCES = [path for kind in ("py", "html", "css", "js", "yaml") for path in sorted(PACKAGE.rglob(f"*.{kind}"))]
REGISTRY = PACKAGE / "registry" / "platforms.py"
# Files outside of their folders that name the first three, in code, not in an example. This list may only become shorter.
ELDERS = {
    "desk/static/desk.css": "drawings of the apps",
    "desk/templates/review.html": "drawings of the apps",
    "domain/channels.py": "keys of a channel",
    "domain/channels_default.yaml": "the first channel",
    "domain/models.py": "keys of a channel, terms of a post",
    "domain/ports.py": "terms of a post",
    "domain/wording.py": "terms of a post",
    "production/stages/post.py": "terms of a post",
    "sandbox/google_token.py": "Google's tokens",
    "store/judgement.py": "terms of a post",
    "store/schema/posts_and_accounts.py": "the one platform whose ids come late",
}
FIRST = ("youtube", "tiktok", "instagram")


def own(path: Path, name: str) -> bool:
    """Whether the file is in the platform's folders, or is history that a migration made."""
    parts = path.relative_to(PACKAGE).parts
    return parts[:2] in (("platforms", name), ("sandbox", name)) or "migrations" in parts


def code_of(path: Path) -> str:
    """The file without its docstrings, comments and examples for people."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    text = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    return re.sub(r"#.*", "", text)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in FIRST])
def test_a_new_platform_is_named_in_its_two_folders_and_in_one_line(name: str) -> None:
    word = re.compile(rf"(?<![a-z]){name}(?![a-z])", re.IGNORECASE)
    if name == "folder":  # an everyday word: only its use as a value counts
        word = re.compile(r"[\"']folder[\"']|platforms[./]folder")
    lines = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in SOURCES
        if not own(path, name)
        for line in path.read_text(encoding="utf-8").splitlines()
        if word.search(line)
    ]
    if name == "folder":
        lines = [line for line in lines if not line.startswith(("cli/", "desk/", "embedded/", "wiring/"))]
    assert lines == [f'registry/platforms.py: "{name}",']


def test_the_first_platforms_are_named_outside_of_their_folders_only_where_it_is_known() -> None:
    word = re.compile(r"youtube|tiktok|instagram", re.IGNORECASE)
    example = re.compile(r"such as|phantoms |Comma-separated|write it like|examples=|platform:tiktok")
    found = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if path != REGISTRY and not any(own(path, name) for name in FIRST)
        for line in code_of(path).splitlines()
        if word.search(line) and not example.search(line)
    }
    assert found - set(ELDERS) == set()
    assert set(ELDERS) - found == set(), "take these off the list"


def test_no_platform_knows_another() -> None:
    for name in BUILT_IN:
        for folder in ("platforms", "sandbox"):
            for path in (PACKAGE / folder / name).rglob("*.py"):
                others = re.findall(
                    rf"phantoms_dagster\.(?:platforms|sandbox)\.({'|'.join(set(BUILT_IN) - {name})})\b", code_of(path)
                )
                assert others == [], path


def test_a_name_is_the_same_object_each_time_also_when_it_was_copied_or_stored() -> None:
    one = Platform("youtube")
    assert one is Platform("youtube") is copy.deepcopy(one) is pickle.loads(pickle.dumps(one))
    assert (one, f"{one}", json.dumps(one), {one: 1}["youtube"]) == ("youtube", "youtube", '"youtube"', 1)
    assert "youtube" in Platform
    assert [str(platform) for platform in Platform] == list(BUILT_IN)


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown platform 'myspace'; the platforms are youtube, tiktok"):
        Platform("myspace")
    text = channels.default_text().replace("youtube: curious-minute\n", "myspace: curious-minute\n")
    with pytest.raises(InvalidInput, match="myspace") as caught:
        channels.parse(text)
    assert all(name in str(caught.value) for name in BUILT_IN)


def test_models_take_names_and_give_registered_platforms() -> None:
    class Wish(BaseModel):
        where: tuple[Platform, ...]

    wish = Wish.model_validate_json('{"where": ["tiktok"]}')
    assert wish.where[0] is Platform("tiktok")
    assert Wish.model_json_schema()["properties"]["where"]["items"]["enum"] == list(BUILT_IN)
    with pytest.raises(ValidationError, match="youtube"):
        Wish.model_validate({"where": ["myspace"]})


def test_every_platform_can_publish_and_has_its_stages() -> None:
    for platform in Platform:
        assert can(platform, "publisher")
        assert {f"{platform}/variant", f"{platform}/post"} <= set(STAGES)
        assert not platform.spec.remote or can(platform, "identity")


def spec(name: str = "pond", **changes: object) -> PlatformSpec:
    fine = frozenset({"mp4"})
    given = {
        "name": name,
        "title": "Pond",
        "adapters": "nowhere",
        "words": WordRules(room=100),
        "media": MediaLimits(containers=fine, video_codecs=fine, audio_codecs=fine, seconds=(1, 10), size=100),
        "pools": {f"publish_{name}": PoolLimits()},
        "routes": (Route(None, "", f"publish_{name}"),),
    }
    return PlatformSpec(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (spec("Pond"), "cannot name a platform"),
        (spec("youtube"), "taken"),
        (spec("openai"), "taken"),
        (spec(routes=()), "must end with one that matches every request"),
        (spec(routes=(Route(None, "", "publish_lake"),)), "publish_lake"),
        (spec(pools={"publish_pond": PoolLimits(), "render": PoolLimits()}), "render"),
    ],
)
def test_a_platform_that_would_break_others_is_refused_with_the_reason(given: PlatformSpec, said: str) -> None:
    with pytest.raises(CannotRegister, match=said):
        register(given)
    assert "pond" not in Platform


# --- another package's platform

RULES = """
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import PlatformSpec, Setting, WordRules

PLATFORM = PlatformSpec(
    name="pond", title="Pond", adapters="phantoms_pond.adapters", sandbox="phantoms_pond.sandbox", sandbox_path="/pond",
    words=WordRules(room=50),
    media=MediaLimits(
        containers=frozenset({"mp4"}), video_codecs=frozenset({"h264"}), audio_codecs=frozenset({"aac"}), seconds=(1, 60), size=9
    ),
    pools={"publish_pond": PoolLimits(slots=3)},
    routes=(Route(None, "", "publish_pond"),),
    settings={"token": Setting(str | None, None, "A token."), "base_url": Setting(str, "https://pond.example", "The host.")},
)
"""
ADAPTERS = """
def publisher(tools):
    return tools
"""
ASK = """
import json
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.resilience.pools import Pools
from phantoms_dagster.resilience.scopes import ROUTES
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import INTEGRATIONS
from phantoms_dagster.wiring.platforms import can
keys = [key.to_user_string() for key in build_definitions().resolve_asset_graph().get_all_asset_keys()]
print(json.dumps({
    "platforms": list(Platform), "slots": Pools().limits("publish_pond").slots, "routes": "pond" in ROUTES,
    "url": Settings().of("pond", "base_url"), "integration": "pond" in INTEGRATIONS, "can": can(Platform("pond"), "publisher"),
    "asset": any("pond" in key and "post" in key for key in keys), "sandbox": Settings().sandbox.mode,
}))
"""


def package(folder: Path, rules: str) -> dict[str, str]:
    """A package as pip would install it, and an environment that sees it."""
    for name, text in {"__init__.py": "", "rules.py": rules, "adapters.py": ADAPTERS}.items():
        path = folder / "phantoms_pond" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    facts = folder / "phantoms_pond-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: phantoms-pond\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[phantoms.platforms]\npond = phantoms_pond.rules:PLATFORM\n", encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "PHANTOMS_HOME": str(folder / "home"), "PHANTOMS_POND_BASE_URL": "http://here"}


def test_another_packages_platform_is_one_like_ours(tmp_path: Path) -> None:
    environment = package(tmp_path, RULES)
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {
        "platforms": [*BUILT_IN, "pond"], "slots": 3, "routes": True, "url": "http://here", "integration": True, "can": True,
        "asset": True, "sandbox": "auto",
    }  # fmt: skip


def test_a_package_whose_platform_cannot_be_registered_is_named_with_the_way_out(tmp_path: Path) -> None:
    environment = package(tmp_path, RULES.replace('name="pond"', 'name="youtube"'))
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "'pond' of the package phantoms-pond cannot be registered" in done.stderr
    assert "pip uninstall phantoms-pond" in done.stderr
