"""The channel's choices for its TikTok posts, and what each post declares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from phantoms_dagster.platforms.tiktok.routes import CREATORS_CHOICE, DIRECT, INBOX, Route
from phantoms_dagster.registry.channel_keys import GATEWAY, ChannelKey, ChannelKeySpec, PostTerms, RequiredKey

NO_PRIVACY = (
    "say who may see its TikTok posts: PUBLIC_TO_EVERYONE, FOLLOWER_OF_CREATOR, MUTUAL_FOLLOW_FRIENDS or SELF_ONLY, for TikTok "
    "allows no default. Only `route: inbox` needs none, because there the creator chooses in the TikTok app"
)
DRAFT_SUMMARY = (
    "Goes to the creator's inbox as a draft. The creator posts it in the TikTok app, and there pastes the caption, chooses who may "
    "see it, and switches on the AI label."
)
_CHOICES = ("comments", "duets", "stitches", "your_brand", "branded_content")
TIKTOK_DECLARATION = "2026-09"  # the guidelines' wording of that month
# What the declaration names, and where it is. The guidelines want both to be shown.
_LEGAL = "https://www.tiktok.com/legal/page/global"
_MUSIC, _BRANDED = f"{_LEGAL}/music-usage-confirmation/en", f"{_LEGAL}/bc-policy/en"


class TikTokChoices(ChannelKey):
    """How the channel's posts get onto TikTok, and the choices that its content sharing guidelines require a person to make.

    `route`: `direct` publishes; `inbox` puts a draft into the creator's inbox, who makes all these choices in the TikTok app;
    `gateway` lets Upload-Post publish, whose app is audited.
    Unless the channel says otherwise, interactions are off and the content is not advertising. The audience has no default.
    `your_brand`: the content promotes the account's own business. `branded_content`: a third party pays for it.
    """

    route: Route = DIRECT
    privacy: Literal["PUBLIC_TO_EVERYONE", "FOLLOWER_OF_CREATOR", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"] | None = None
    comments: bool = False
    duets: bool = False
    stitches: bool = False
    your_brand: bool = False
    branded_content: bool = False

    @model_validator(mode="after")
    def _says_who_may_see(self) -> Self:
        if self.privacy is None and self.route != INBOX:
            raise ValueError(NO_PRIVACY)
        return self

    @model_validator(mode="after")
    def _seen_by_others(self) -> Self:
        if self.branded_content and self.privacy == "SELF_ONLY":
            raise ValueError("branded_content cannot go out as SELF_ONLY; choose another privacy")
        return self

    def audience(self) -> str | None:
        """See ChannelKey."""
        return CREATORS_CHOICE if self.route == INBOX else self.privacy

    def way(self) -> str:
        """See ChannelKey."""
        return "" if self.route == DIRECT else self.route

    def terms(self) -> TikTokTerms:
        """See ChannelKey. A draft declares nothing: TikTok takes no settings with it, and asks the creator."""
        if self.route == INBOX:
            return TikTokTerms(route=INBOX, **dict.fromkeys(_CHOICES, False), ai_generated=False, declaration="")
        policy = "Branded Content Policy and Music Usage Confirmation" if self.branded_content else "Music Usage Confirmation"
        said = f"By posting, you agree to TikTok's {policy}."
        route = GATEWAY if self.route == GATEWAY else None
        return TikTokTerms(route=route, declaration=said, **self.model_dump(include=set(_CHOICES)))


class TikTokTerms(PostTerms):
    """What a TikTok post declares. A person agrees to it by approving. The approval records it with their name and the time.

    `declaration` is the guidelines' own text and `version` its month. All our videos are made by AI and labelled as such. `route`:
    None for a direct post.
    """

    comments: bool
    duets: bool
    stitches: bool
    your_brand: bool
    branded_content: bool
    ai_generated: bool = True
    declaration: str
    version: str = TIKTOK_DECLARATION
    # Not written when it is None: words that were approved before have no such field.
    route: Literal["inbox", "gateway"] | None = Field(None, exclude_if=lambda value: value is None)

    def way(self) -> str:
        """See PostTerms."""
        return self.route or ""

    def summary(self) -> str:
        """See PostTerms."""
        if self.route == INBOX:
            return DRAFT_SUMMARY
        on = [name for name in ("comments", "duets", "stitches") if getattr(self, name)]
        discloses = [name.replace("_", " ") for name in ("your_brand", "branded_content") if getattr(self, name)]
        label = "labelled as made by AI" if self.ai_generated else "no AI label"
        # With both, TikTok shows the second one.
        shown = f', which TikTok labels "{"Paid partnership" if self.branded_content else "Promotional content"}"'
        parts = [
            f"{', '.join(on)} on" if on else "comments, duets and stitches off",
            f"{', '.join(discloses)}{shown}" if discloses else "no advertising",
            label,
        ]
        by = " Upload-Post publishes it." if self.route == GATEWAY else ""
        links = f"{_BRANDED} {_MUSIC}" if self.branded_content else _MUSIC
        return f"{'; '.join(parts)}.{by} {self.declaration} {links}"


CHANNEL_KEY = ChannelKeySpec(
    model=TikTokChoices,
    terms=TikTokTerms,
    always_written=frozenset({"key", "terms"}),
    form="tiktok: {privacy: PUBLIC_TO_EVERYONE, route: direct, comments: true}; route may also be inbox or gateway, and "
    "other keys are duets, stitches, your_brand and branded_content",
    required=RequiredKey(
        mistake=NO_PRIVACY,
        unsaid="who may see its posts there",
        example="tiktok: {privacy: ...}",
    ),
)
