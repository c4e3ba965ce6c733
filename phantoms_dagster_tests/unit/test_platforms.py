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
from phantoms_dagster.domain.models import Channel, Platform, PostWords
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec
from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.platforms import BUILT_IN, NAME, RESERVED, register
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import PlatformSpec, WordRules
from phantoms_dagster.wiring.platforms import can

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "phantoms_dagster"
SOURCES = [path for kind in ("py", "html", "css", "js", "yaml") for path in sorted(PACKAGE.rglob(f"*.{kind}"))]
REGISTRY = PACKAGE / "registry" / "platforms.py"
# Files outside of their folders that name the first three, in code, not in an example. Only gateways may be added.
ELDERS = {
    "domain/channels_default.yaml": "the first channel",
    "store/schema/posts_and_accounts.py": "the index of a migration",
    "sandbox/uploadpost/routes.py": "a gateway has a form of its own for each platform",
    "sandbox/uploadpost/state.py": "and limits",
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
    text = re.sub(r'^ *""".*?"""$', "", text, flags=re.DOTALL | re.MULTILINE)
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


class PondKey(ChannelKey):
    depth: int


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (spec("Pond"), "cannot name a platform"),
        (spec("youtube"), "taken"),
        (spec("openai"), "taken"),
        (spec("voice"), "taken"),
        (spec(channel_key=ChannelKeySpec(PondKey, "pond: {depth: 3}")), "channels without the key pond would be refused"),
        (spec(routes=()), "must end with one that matches every request"),
        (spec(routes=(Route(None, "", "publish_lake"),)), "publish_lake"),
        (spec(pools={"publish_pond": PoolLimits(), "render": PoolLimits()}), "render"),
    ],
)
def test_a_platform_that_would_break_others_is_refused_with_the_reason(given: PlatformSpec, said: str) -> None:
    with pytest.raises(CannotRegister, match=said):
        register(given)
    assert "pond" not in Platform


def test_no_platform_can_have_the_name_of_a_field_next_to_its_own() -> None:
    """Its key of a channel, or the terms of its posts, would replace that field."""
    fields = {name for model in (Channel, PostWords) for name in model.model_fields if NAME.fullmatch(name)}
    assert fields - {str(platform) for platform in Platform} <= RESERVED


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
KEY = """
from typing import Literal

from phantoms_dagster.registry.channel_keys import ChannelKey, ChannelKeySpec, PostTerms, RequiredKey, TagLimits


class PondKey(ChannelKey):
    water: Literal["fresh", "salt"]
    hashtags: int = 1

    def tag_limits(self):
        return TagLimits(self.hashtags, mentions=0)

    def audience(self):
        return f"friends of {self.water} water"

    def terms(self):
        return PondTerms(fish=self.water == "fresh")


class PondTerms(PostTerms):
    fish: bool

    def summary(self):
        return "with fish" if self.fish else "no fish"


CHANNEL_KEY = ChannelKeySpec(
    model=PondKey,
    terms=PondTerms,
    form="pond: {water: fresh}",
    required=RequiredKey(mistake="say which water", unsaid="which water it wants", example="pond: {water: ...}"),
)
"""
# Reads a channels.yaml, prints what it says of it and what the words of its posts would be.
ASK_FOR_WORDS = """
import json, sys
from phantoms_dagster.domain.channels import parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import MediaFile, Platform, Script, content_hash
from phantoms_dagster.domain.wording import changes, notes, post_words
from phantoms_dagster.store.judgement import Review, judged

files = json.loads(sys.stdin.read())
script = Script(hook="h", scenes=[{"narration": "n", "on_screen_text": ""}], title="t", caption="c", hashtags=["#a", "#b"])
master = MediaFile(sha256="0" * 64, size=1, suffix=".mp4")
refused = []
for text in files["wrong"]:
    try:
        parse(text)
    except InvalidInput as error:
        refused.append(str(error))
[fresh, salt, other] = parse(files["right"]).values()
where = [Platform("pond"), Platform("youtube")]
posts, changed = (post_words(script, channel, where) for channel in (fresh, salt))
lacking = Review(post_words(script, other, where), "")
ready = {"state": "ready", "held": None, "pending": None}
print(json.dumps({
    "refused": refused,
    "captions": [post.caption for post in posts],
    "audiences": [post.privacy for post in posts],
    "notes": [notes(post) for post in posts],
    "changes": changes(posts, changed),
    "hashes": len({content_hash(script, master, words) for words in (posts, changed)}),
    "stored": [post.model_dump_json() for post in posts],
    "read_again": type(posts[0]).model_validate_json(posts[0].model_dump_json()) == posts[0],
    "channels": [channel.model_dump_json() for channel in (fresh, other)],
    "approval": str(judged("v1", ready, lacking, lacking, approved=True, looked_at=None)),
}))
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
    for name, text in {"__init__.py": "", "rules.py": rules, "adapters.py": ADAPTERS, "key.py": KEY}.items():
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


def test_another_packages_platform_may_have_its_own_key_of_a_channel_and_terms_of_its_posts(tmp_path: Path) -> None:
    rules = RULES.replace("words=WordRules", "channel_key=CHANNEL_KEY, words=WordRules")
    environment = package(tmp_path, f"from phantoms_pond.key import CHANNEL_KEY\n{rules}")
    one = "  sea:\n    title: The Sea\n    brand_voice: Calm.\n    accounts: {pond: sea, youtube: sea}\n"
    fresh = f"{one}    pond: {{water: fresh}}\n"
    salt = fresh.replace("sea:", "ocean:").replace("fresh", "salt")
    other = one.replace("sea:", "sky:").replace("pond: sea, ", "")
    wrong = [one, one + "    pond: {water: sweet}\n", fresh + "    lake: 1\n", one + "    pond: {water: salt, fish: 1}\n"]
    files = {"right": "channels:\n" + fresh + salt + other, "wrong": ["channels:\n" + text for text in wrong]}
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_WORDS], env=environment, input=json.dumps(files), capture_output=True, text=True,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    form = "; write it like `pond: {water: fresh}`"
    place = "channels.yaml line 6: channel 'sea':"
    assert told["refused"][:2] == [
        f"channels.yaml line 2: channel 'sea': pond: say which water{form}",
        f"{place} pond.water: should be 'fresh' or 'salt'{form}",
    ]
    assert told["refused"][2].startswith("channels.yaml line 7: channel 'sea': lake: there is no such key; the keys are title, ")
    assert "hashtags, instagram, pond, tiktok, youtube, timezone" in told["refused"][2]
    assert told["refused"][3] == f"{place} pond.fish: is not a known key{form}"
    assert told["captions"] == ["c\n\n#a", "c\n\n#a #b"]
    assert told["audiences"] == ["friends of fresh water", "public"]
    assert told["notes"] == [["left out, no room: #b", "with fish"], []]
    assert told["changes"] == "Pond privacy: +salt -fresh; Pond pond: +fish=False -fish=True"
    assert told["hashes"] == 2
    assert told["read_again"]
    assert "its channel does not say which water it wants: set `pond: {water: ...}` in channels.yaml" in told["approval"]
    # What does not use the platform can be read when the package is gone.
    assert PostWords.model_validate_json(told["stored"][1]).platform == "youtube"
    assert Channel.model_validate_json(told["channels"][1]).name == "sky"
    with pytest.raises(ValidationError, match="pond"):
        Channel.model_validate_json(told["channels"][0])


def test_another_packages_platform_may_draw_its_app_on_the_review_page(tmp_path: Path) -> None:
    rules = RULES.replace("import PlatformSpec", "import Appearance, PlatformSpec").replace(
        "words=WordRules", 'look=Appearance(screen="phantoms_pond"), words=WordRules'
    )
    environment = package(tmp_path, rules)
    (tmp_path / "phantoms_pond" / "screen.html").write_text("<b>{{ target.account }}</b>", encoding="utf-8")
    (tmp_path / "phantoms_pond" / "screen.css").write_text(".pond .c-top { color: green; }", encoding="utf-8")
    asked = """
from types import SimpleNamespace
from phantoms_dagster.desk.render import environment, static_files
print(environment().get_template("pond/screen.html").render(target=SimpleNamespace(account="lily")))
print(b".pond .c-top { color: green; }" in static_files()["desk.css"].content)
"""
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == ["<b>lily</b>", "True"], done.stderr[-2_000:]


def test_a_package_whose_platform_cannot_be_registered_is_named_with_the_way_out(tmp_path: Path) -> None:
    environment = package(tmp_path, RULES.replace('name="pond"', 'name="youtube"'))
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "'pond' of the package phantoms-pond cannot be registered" in done.stderr
    assert "pip uninstall phantoms-pond" in done.stderr
