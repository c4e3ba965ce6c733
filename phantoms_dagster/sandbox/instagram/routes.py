"""A stand-in for the Instagram Platform (Graph API) for publishing reels and reading insights.

All routes are below `/instagram`: `/instagram/v26.0/...` for graph.facebook.com, `/instagram/rupload/...` for rupload.facebook.com,
`/instagram/watch/<id>` for the page behind a permalink. `people` has the owners of tokens and their numeric ids. The stand-in
makes no requests to other machines: a `video_url` must be on this machine.

Settings: `instagram.processing_seconds` (see `pace`), `instagram.quota_total` (100), `instagram.containers_total` (400),
`instagram.names` (false: an account may be addressed by its name too, which the platform refuses), `instagram.login`
(facebook), `instagram.login_uploads` (true: apps with Instagram Login may upload, too), `instagram.trials` (true: accounts may post
trial reels), `instagram.followers` (1,000; with fewer an account may post none), `instagram.app_secret`, `instagram.require_proof`
(false: a call needs no `appsecret_proof`, but a wrong one is refused), those of `tokens`, `instagram.max_bytes` (300 MB),
`instagram.check_media` (true: a video that breaks the media rules fails), `instagram.counted_hashtags` (5: with more a reel loses
its caption, because what happens is not documented; null: it keeps it), `instagram.strip_at` (true: captions are read back without
'@'), `instagram.status_lag_seconds` (0), `instagram.insights_delay_seconds` (0), `instagram.metrics_hours` (24),
`instagram.deleted_media` ([]: ids of media that no longer exist), `instagram.claimed_media` ([]: ids of media without a permalink,
as after a copyright claim).
"""

from __future__ import annotations

import html
from typing import Any

from aiohttp import ClientError, ClientSession, web

from phantoms_dagster.sandbox.core import Sandbox, body_blocks, page
from phantoms_dagster.sandbox.instagram import insights as insights_of
from phantoms_dagster.sandbox.instagram import oauth, people
from phantoms_dagster.sandbox.instagram.media import NO_SUCH_FRAME, UNSUPPORTED_FORMAT, IncomingUpload, fault
from phantoms_dagster.sandbox.instagram.rules import (
    GraphError,
    Params,
    boolean,
    check_container,
    check_proof,
    gone,
    listed,
    living,
    moment,
    params_of,
    picked,
    text_of,
    unknown_name,
)
from phantoms_dagster.sandbox.instagram.state import DAY, InstagramState, Media, SandboxContainer
from phantoms_dagster.sandbox.tokens import Token, token_of
from phantoms_dagster.sandbox.watch_page import player

MAX_BYTES = 300 * 1024 * 1024
CHUNK = 1 << 18
CHOICES = ("trial_params", "collaborators", "cover_url", "thumb_offset")


class _Instagram:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.state: InstagramState = sandbox.state.setdefault("instagram", InstagramState(sandbox))

    # --- publishing

    async def create(self, request: web.Request) -> web.Response:
        params = await params_of(request)
        account = self._owner(request, params, "publish")
        check_container(params)
        if self.state.containers_since(account, self.sandbox.now() - DAY) >= self._setting("containers_total", 400):
            raise GraphError(403, 9, "Too many containers were made in the last 24 hours", 2_207_042)
        large = int(self._setting("followers", people.FOLLOWERS)) >= people.TRIAL_FOLLOWERS
        if "trial_params" in params and not (large and self._setting("trials", True)):
            raise GraphError(400, 100, "(#100) The parameter trial_params is not supported for this account")
        if self._login == "instagram" and "upload_type" in params and not self._setting("login_uploads", True):
            raise GraphError(400, 100, "(#100) The parameter video_url is required.")
        made = self.state.open(
            account,
            params.get("caption", ""),
            share_to_feed=boolean(params, "share_to_feed", True),
            is_ai_generated=boolean(params, "is_ai_generated", False),
            choices={name: params[name] for name in CHOICES if name in params},
        )
        if "upload_type" not in params:
            await self._fetch(made, params["video_url"])
            return web.json_response({"id": made.id})
        uri = f"{self._origin(request)}/instagram/rupload/ig-api-upload/{request.match_info['version']}/{made.id}"
        return web.json_response({"id": made.id, "uri": uri})

    async def upload(self, request: web.Request) -> web.Response:
        # The whole body is read before anything is refused, because a client that is still writing would not see the answer.
        received = await _received(request)
        # The upload host takes the token from the header and does not know `appsecret_proof`.
        account = living(self._token(text_of(request, request.query))).account
        container = self._container(request.match_info["container"], account)
        if "file_url" in request.headers:
            return _upload_failed("ProcessingFailedError", "The sandbox fetches no URLs", retriable=False)
        if request.headers.get("offset") != "0":
            return _upload_failed("OffsetInvalidError", "The upload must start at offset 0", retriable=False)
        if request.headers.get("file_size") != str(received.size) or received.size == 0:
            return _upload_failed("PartialRequestError", "The body does not have file_size bytes", retriable=True)
        if self.state.status(container) != "IN_PROGRESS" or container.uploaded_at is not None:
            return _upload_failed("ProcessingFailedError", "The container takes no more bytes", retriable=False)
        self._take(container, received)
        return web.json_response({"success": True, "message": "Upload successful. Get the status from the container."})

    def _take(self, container: SandboxContainer, received: IncomingUpload) -> None:
        container.uploaded_at, container.size, container.sha256 = self.sandbox.now(), received.size, received.sha256
        self.state.keep(container)
        if received.size > self._setting("max_bytes", MAX_BYTES):
            container.error = UNSUPPORTED_FORMAT
        elif self._setting("check_media", True):
            video = received.video(self.sandbox)
            container.error = fault(video)
            if video is not None and float(container.choices.get("thumb_offset", 0)) > video.seconds * 1_000:
                container.error = NO_SUCH_FRAME

    async def _fetch(self, container: SandboxContainer, url: str) -> None:
        """Fetch a file from this machine; other hosts are never contacted. An error of the fetch becomes the container's error."""
        received = IncomingUpload()
        try:
            async with ClientSession() as client, client.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise GraphError(400, 9004, "The media could not be fetched from this URI", 2_207_052)
                async for block in answer.content.iter_chunked(CHUNK):
                    received.feed(block)
        except ClientError:
            raise GraphError(400, 9004, "The media could not be fetched from this URI", 2_207_052) from None
        self._take(container, received)

    async def status(self, request: web.Request) -> web.Response:
        container = self._container(request.match_info["container"], self._account(request, request.query, "publish"))
        code = self.state.status(container)
        text = f"Error: Media upload has failed with error code {container.error}" if code == "ERROR" else code.title()
        known = {"id": container.id, "status_code": code, "status": text, "copyright_check_status": {"status": "completed"}}
        return web.json_response(picked(request.query.get("fields"), known))

    async def publish(self, request: web.Request) -> web.Response:
        params = await params_of(request)
        account = self._owner(request, params, "publish")
        if "creation_id" not in params:
            raise GraphError(400, 100, "(#100) The parameter creation_id is required.")
        container = self.state.containers.get(params["creation_id"])
        if container is None or container.account != account:
            raise GraphError(400, 24, "The requested resource does not exist", 2_207_006)
        status = "PUBLISHED" if container.media_id else self.state.status(container)
        if status == "EXPIRED":
            raise GraphError(400, 24, "The container has expired", 2_207_008)
        if status != "FINISHED":
            raise GraphError(400, 9007, "Media ID is not available", 2_207_027)
        if self._used(account) >= self._setting("quota_total", 100):
            raise GraphError(403, 9, "You reached the maximum number of posts that can be published", 2_207_042)
        return web.json_response({"id": self.state.publish(container).id})

    async def quota(self, request: web.Request) -> web.Response:
        account = self._owner(request, request.query, "publish")
        since = request.query.get("since")
        start = moment(since) if since else None
        if start is not None and start < self.sandbox.now() - DAY:
            raise GraphError(400, 100, "(#100) since must be within the last 24 hours")
        total = self._setting("quota_total", 100)
        known = {"id": account, "quota_usage": self._used(account, start), "config": {"quota_total": total, "quota_duration": DAY}}
        answer = picked(request.query.get("fields", "quota_usage"), known)
        return web.json_response({"data": [{k: v for k, v in answer.items() if k != "id"}]})

    # --- reading back

    async def list_media(self, request: web.Request) -> web.Response:
        query = request.query
        account = self._owner(request, query, "basic")
        since, until = moment(query.get("since", "0")), moment(query["until"]) if "until" in query else float("inf")
        limit = int(query["limit"]) if query.get("limit", "").isdecimal() else 25
        deleted = self._setting("deleted_media", ())
        reels = [media for media in self.state.posts_between(account, since, until) if media.id not in deleted]
        ids = [m.id for m in reels]
        first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        page = reels[first : first + min(limit, 100)]
        body: dict[str, Any] = {"data": [self._picked(request, m) for m in page]}
        if page:
            body["paging"] = {"cursors": {"before": page[0].id, "after": page[-1].id}}
            if page[-1].id != ids[-1]:
                # Without the token, because URLs in answers end up in logs.
                body["paging"]["next"] = str(request.url.update_query(after=page[-1].id).without_query_params("access_token"))
        return web.json_response(body)

    async def read(self, request: web.Request) -> web.Response:
        media = self._media(request.match_info["media"], self._account(request, request.query, "basic"))
        return web.json_response(self._picked(request, media))

    async def insights(self, request: web.Request) -> web.Response:
        media = self._media(request.match_info["media"], self._account(request, request.query, "insights"))
        asked = listed(request.query.get("metric", ""))
        known = [*insights_of.REEL_METRICS, *insights_of.OTHER_METRICS]
        if not asked:
            raise GraphError(400, 100, "(#100) The parameter metric is required")
        for at, metric in enumerate(asked):
            if metric not in known:
                raise GraphError(400, 100, f"(#100) metric[{at}] must be one of the following values: {', '.join(known)}")
            if metric in insights_of.OTHER_METRICS:
                text = f"(#100) The Media Insights API does not support the {metric} metric for this media product type."
                raise GraphError(400, 100, text)
        age = self.sandbox.now() - media.published_at
        if age < float(self._setting("insights_delay_seconds", 0.0)):
            return web.json_response({"data": []})
        fate = insights_of.reel(self.sandbox.seed, media.id, float(self._setting("metrics_hours", 24.0)))
        return web.json_response({"data": [_insight(media, m, insights_of.value(fate, m, age)) for m in asked]})

    async def watch(self, request: web.Request) -> web.Response:
        media = self.state.media.get(request.match_info["media"])
        if media is None:
            raise web.HTTPNotFound(text="Sorry, this page isn't available.")
        caption, account = html.escape(media.caption), html.escape(media.account.lstrip("@"))
        facts = f"A reel of the sandbox, published {media.timestamp}. Nobody else can see it."
        container = next((c for c in self.state.containers.values() if c.media_id == media.id), None)
        player_html = player(self.sandbox, container.sha256) if container is not None else ""
        return page(f"@{account} on Instagram (sandbox)", f"{player_html}<p>{caption}</p><p>{facts}</p>")

    # --- who it is

    async def me(self, request: web.Request) -> web.Response:
        token = self._living(request, request.query)
        return web.json_response(people.me(token, self._login, request.query.get("fields")))

    async def pages(self, request: web.Request) -> web.Response:
        token = self._living(request, request.query)
        if self._login == "instagram":
            raise gone("me")
        people.check_scope(token, self._login, "pages_show_list")
        return web.json_response(people.pages(token, request.query.get("fields")))

    async def permissions(self, request: web.Request) -> web.Response:
        token = self._living(request, request.query)
        if self._login == "instagram":
            raise GraphError(400, 100, "(#100) Tried accessing nonexisting field (permissions) on node type (IGUser)")
        return web.json_response(people.permissions(token, self._login))

    async def debug_token(self, request: web.Request) -> web.Response:
        app = f"{people.APP_ID}|{self._setting('app_secret', people.APP_SECRET)}"
        if text_of(request, request.query) != app:
            self._living(request, request.query)
        inspected = request.query.get("input_token")
        if not inspected:
            raise GraphError(400, 100, "(#100) The parameter input_token is required")
        return web.json_response(people.debug(self._token(inspected), self._login))

    async def node(self, request: web.Request) -> web.Response:
        token, number = self._living(request, request.query), request.match_info["node"]
        if not number.isdecimal():
            raise unknown_name(number)
        known = people.node_facts(token, number, followers=int(self._setting("followers", people.FOLLOWERS)))
        if known is None:
            raise gone(number)
        people.check_scope(token, self._login, "basic")
        return web.json_response(picked(request.query.get("fields"), known[1], node=known[0]))

    # --- what the handlers share

    def _setting(self, name: str, default: Any) -> Any:
        return self.sandbox.setting(f"instagram.{name}", default)

    def _origin(self, request: web.Request) -> str:
        return self.sandbox.base_url.rstrip("/") or f"{request.scheme}://{request.host}"

    @property
    def _login(self) -> str:
        return str(self._setting("login", "facebook"))

    def _token(self, text: str) -> Token | None:
        token = token_of(self.sandbox, "instagram", text, people.scopes_of(self._login))
        # Instagram Login's tokens are unknown at graph.facebook.com.
        return None if token and token.issued and self._login != "instagram" else token

    def _living(self, request: web.Request, params: Params) -> Token:
        """The token of a request. Raises GraphError if it is not valid or its proof is wrong."""
        text = text_of(request, params)
        token = living(self._token(text))
        secret = str(self._setting("app_secret", people.APP_SECRET))
        check_proof(params, text, secret, required=bool(self._setting("require_proof", False)))
        return token

    def _account(self, request: web.Request, params: Params, permission: str) -> str:
        """The token's account. Raises GraphError if the token lacks the permission."""
        token = self._living(request, params)
        people.check_scope(token, self._login, permission)
        return token.account

    def _owner(self, request: web.Request, params: Params, permission: str) -> str:
        """The account in the path. Raises GraphError if the token belongs to another account."""
        account, named = self._account(request, params, permission), request.match_info["user"]
        if named == people.ig_user_id(account) or (named == account and self._setting("names", False)):
            return account
        raise gone(named) if named.isdecimal() or request.method == "POST" else unknown_name(named)

    def _container(self, number: str, account: str) -> SandboxContainer:
        found = self.state.containers.get(number)
        if found is None or found.account != account:
            raise gone(number)
        return found

    def _media(self, number: str, account: str) -> Media:
        found = self.state.media.get(number)
        if found is None or found.account != account or number in self._setting("deleted_media", ()):
            raise gone(number)
        return found

    def _used(self, account: str, start: float | None = None) -> int:
        return self.state.posts_since(account, self.sandbox.now() - DAY if start is None else start)

    def _picked(self, request: web.Request, media: Media) -> dict[str, Any]:
        """The requested fields of a media, without those that the platform withholds."""
        fields = picked(request.query.get("fields"), self._facts(request, media))
        return {name: value for name, value in fields.items() if value is not None}

    def _facts(self, request: web.Request, media: Media) -> dict[str, Any]:
        caption = media.caption.replace("@", "") if self._setting("strip_at", True) else media.caption
        permalink = f"{self._origin(request)}/instagram/watch/{media.id}"
        return {
            "id": media.id,
            "caption": caption,
            "timestamp": media.timestamp,
            "permalink": None if media.id in self._setting("claimed_media", ()) else permalink,
            "media_type": "VIDEO",
            "media_product_type": "REELS",
            "is_ai_generated": media.is_ai_generated,
            "is_shared_to_feed": media.share_to_feed,
            "username": media.account,
        }


def _insight(media: Media, metric: str, number: float) -> dict[str, Any]:
    title = metric.replace("_", " ").capitalize()
    known = {"name": metric, "period": "lifetime", "values": [{"value": number}], "title": title, "description": title}
    return {**known, "id": f"{media.id}/insights/{metric}/lifetime"}


def _upload_failed(kind: str, message: str, *, retriable: bool) -> web.Response:
    return web.json_response({"debug_info": {"retriable": retriable, "type": kind, "message": message}}, status=400)


async def _received(request: web.Request) -> IncomingUpload:
    upload = IncomingUpload()
    async for block in body_blocks(request, CHUNK):
        upload.feed(block)
    return upload


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The stand-in's routes; faults are set by their names, `instagram.create` to `instagram.watch`."""
    api = _Instagram(sandbox)

    def answering(handler: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                response: web.StreamResponse = await handler(request)
            except GraphError as error:
                return web.json_response(error.body, status=error.status)
            return response

        return answer

    graph = r"/instagram/{version:v\d+\.\d+}"
    end = "{_:/?}"  # Meta's own client adds a slash to the address of a node
    return [
        web.get(graph + "/me" + end, answering(api.me), name="instagram.me"),
        web.get(graph + "/me/accounts" + end, answering(api.pages), name="instagram.accounts"),
        web.get(graph + "/me/permissions" + end, answering(api.permissions), name="instagram.permissions"),
        web.get(graph + "/debug_token" + end, answering(api.debug_token), name="instagram.debug_token"),
        web.post(graph + "/{user}/media" + end, answering(api.create), name="instagram.create"),
        web.post(r"/instagram/rupload/ig-api-upload/{version}/{container}", answering(api.upload), name="instagram.upload"),
        web.get(graph + r"/{container:1788\d{13}}" + end, answering(api.status), name="instagram.status"),
        web.post(graph + "/{user}/media_publish" + end, answering(api.publish), name="instagram.publish"),
        web.get(graph + "/{user}/content_publishing_limit" + end, answering(api.quota), name="instagram.quota"),
        web.get(graph + "/{user}/media" + end, answering(api.list_media), name="instagram.list"),
        web.get(graph + r"/{media:1805\d{13}}/insights" + end, answering(api.insights), name="instagram.insights"),
        web.get(graph + r"/{media:1805\d{13}}" + end, answering(api.read), name="instagram.read"),
        web.get(graph + "/{node}" + end, answering(api.node), name="instagram.node"),
        web.get(graph + "/{node}/insights" + end, answering(api.node), name="instagram.node_insights"),
        web.get("/instagram/watch/{media}", api.watch, name="instagram.watch"),
        *oauth.routes(sandbox),
    ]
