"""`PlatformSpec`, the record that describes a platform.

It holds values and module names, and imports no code that sends requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.registry.channel_keys import ChannelKeySpec
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import PoolLimits
from phantoms_dagster.registry.routes import Route


@dataclass(frozen=True)
class Setting:
    """One setting of a platform or a provider: its type, its default and its line in docs/settings.md.

    It is read from PHANTOMS_<NAME OF THE PLATFORM OR PROVIDER>_<NAME OF THE SETTING>.
    """

    type: Any
    default: Any
    description: str


@dataclass(frozen=True)
class WordRules:
    """A platform's rules for titles and captions.

    - `room`: the longest caption, as counted by `size`.
    - `clean` replaces characters that the platform refuses.
    - `hashtags`: the most hashtags in a caption.
    - `titled`: viewers see the title.
    - `repeats`: the platform may treat two posts with the same caption within a day as spam.
    - `names_in_picture`: the picture may carry a name or a logo.
    - `privacy`: the default audience of a post, in the platform's own terms.
    """

    room: int
    size: Callable[[str], int] = len
    clean: Callable[[str], str] = str
    hashtags: int = 30
    titled: bool = True
    repeats: bool = False
    names_in_picture: bool = True
    privacy: str = "public"


@dataclass(frozen=True)
class LateIdRule:
    """Which published posts have no public id yet, and will get one.

    - `public_id`: a regular expression of PostgreSQL that matches every public id, and no id that a post has before.
    - `handles`: the saved handle of such a post has the values of one of these. Posts with other values never get a public id.
    """

    public_id: str
    handles: tuple[Mapping[str, str | Mapping[str, str]], ...] = ({},)


# The address of the sandbox, in a pattern of `PostForm`.
SANDBOX = r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?"


@dataclass(frozen=True)
class PostForm:
    """One form in which people name a post, such as its URL.

    `pattern`: a regular expression that matches the whole text. Its group `id` is what the platform's post reader asks for.
    `sandbox`: only posts of the sandbox have this form.
    """

    pattern: str
    example: str
    sandbox: bool = False


@dataclass(frozen=True)
class Appearance:
    """How the desk and the charts show a platform. `colours`: for light and dark mode. `chart`: on white. `dot`: a CSS background.

    `safe`: how much of the picture the app's own buttons cover at the top, bottom, left and right, in CSS lengths (None: unknown).
    `screen`: the package with `screen.html` and `screen.css`, which draw the app's controls around the video on the review page.
    """

    colours: tuple[str, str] = ("#475569", "#94a3b8")
    chart: str = "#475569"
    dot: str = "#64748b"
    safe: tuple[str, str, str, str] | None = None
    screen: str | None = None


@dataclass(frozen=True)
class SandboxApp:
    """The app that a platform's stand-in knows from the start. Accounts that are connected with it are in the sandbox.

    `addresses`: the settings that are in the sandbox then, unless a person sets them: paths after the sandbox's address, or whole
    addresses.
    """

    client_id: str
    addresses: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegrationSpec:
    """What platforms and providers have in common.

    - `adapters`: the module that makes its adapters (see `platforms.tools` and `providers.tools`).
    - `remote`: it is a service, with a client, pools and a breaker. The sandbox replaces only remote ones.
    - `sandbox`: the module of its stand-in, whose `routes(sandbox)` the sandbox serves. None: it has no stand-in.
    - `sandbox_path`: the path after the sandbox's address in the base URL of its stand-in.
    - `events`: the module that reads the events which the service sends to the desk (`provider_events.EventReader`). None: it sends
      none that help.
    - `paces`: how long the stand-in works on a video, in seconds, by setting: the default, and the shortest and longest time of the
      real service.
    """

    name: str
    title: str
    adapters: str
    remote: bool = True
    pools: Mapping[str, PoolLimits] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    sandbox: str | None = None
    sandbox_path: str = ""
    events: str | None = None
    paces: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlatformSpec(IntegrationSpec):
    """Everything that is specific to one platform.

    `oauth`: `phantoms accounts connect` connects its accounts; then its settings include `client_id`, `client_secret` and
    `redirect_uri`. `redirects`: a sentence on the redirect URIs it takes. `sign_in`: what a person does instead if it has no OAuth.
    `settings`: a remote platform has at least `token` and `base_url`. `channel_key`: its own key of a channel. `usual`: it is
    offered, and its stand-in runs, even before a channel names it. `late_ids`: it may publish a post before it assigns the public
    id; the rule tells which posts lack it. `gateway`: the provider that publishes the posts whose route is `GATEWAY`. `post_forms`:
    how people name a post of it. `sandbox_app`: the app that its stand-in knows. `roomy`: settings of its stand-in with which a
    demonstration can post more than the real platform allows.
    """

    words: WordRules
    media: MediaLimits
    channel_key: ChannelKeySpec | None = None
    usual: bool = False
    oauth: bool = False
    redirects: str = ""
    sign_in: str = "its documentation says where its accounts' tokens come from; channels.yaml names them"
    late_ids: LateIdRule | None = None
    gateway: str | None = None
    post_forms: tuple[PostForm, ...] = ()
    sandbox_app: SandboxApp | None = None
    roomy: Mapping[str, int] = field(default_factory=dict)
    look: Appearance = Appearance()
