"""A platform's own key of a channel in channels.yaml, and the terms that a post on that platform declares.

The key has the platform's name, such as `tiktok: {privacy: SELF_ONLY}`. The models of a platform are in its folder or package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

# The route of posts that another service publishes for us. Each platform's record names that service.
GATEWAY = "gateway"


@dataclass(frozen=True)
class TagLimits:
    """The most hashtags and mentions in a caption; the rest is left out."""

    hashtags: int
    mentions: int


class PostTerms(BaseModel, ABC):
    """What a post on one platform declares. A person agrees to it by approving.

    It is stored with the words of the post, and the hash that an approval is bound to covers it. A field that is added later
    changes the hash of posts that were approved before, unless its default is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def summary(self) -> str:
        """What the reviewer reads about it."""

    def set_apart(self) -> str | None:
        """Why the results of this post are not compared with those of other posts, in a few words. None: they are."""
        return None

    def way(self) -> str:
        """The route of the post, if the platform has several. Empty: the usual one."""
        return ""

    def lead(self) -> timedelta:
        """How long before its time the platform may get the post, if the platform itself then publishes it. Zero: we publish it."""
        return timedelta(0)

    def extras(self) -> tuple[str, ...]:
        """What is added to the post after its publication, by the names of `domain.post_extras`."""
        return ()


class ChannelKey(BaseModel):
    """What a channel says about its posts on one platform. Subclasses add the fields and override what they need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tag_limits(self) -> TagLimits | None:
        """The channel's own limits for hashtags and mentions. None: only the platform's limits apply."""
        return None

    def audience(self) -> str | None:
        """Who may see the posts, in the platform's own terms. None: the default of the settings or of the platform."""
        return None

    def way(self) -> str:
        """The route of the channel's posts, if the platform has several. Empty: the usual one."""
        return ""

    def terms(self) -> PostTerms | None:
        """What a post declares, an instance of `ChannelKeySpec.terms`. None: nothing."""
        return None


@dataclass(frozen=True)
class RequiredKey:
    """The texts for a channel that posts on the platform but lacks the key.

    - `mistake`: the reason in the message about channels.yaml.
    - `unsaid`: ends the sentence "its channel does not say ...".
    - `example`: the shortest key that suffices, with dots for a value.
    """

    mistake: str
    unsaid: str
    example: str


@dataclass(frozen=True)
class ChannelKeySpec:
    """The record of a platform's own key.

    - `model` validates the key.
    - `form`: an example of the key, shown with every mistake in it.
    - `terms`: the model of what is stored with the words of a post.
    - `always_written`: the stored rows of version 0.1.0 have the key of every channel, or the terms of every post. They keep that
      form. Other keys and terms are stored only if a channel or a post uses them.
    - `required`: a channel with an account on the platform must have the key. None: a channel without the key has `model()`.
    """

    model: type[ChannelKey]
    form: str
    terms: type[PostTerms] | None = None
    required: RequiredKey | None = None
    always_written: frozenset[Literal["key", "terms"]] = frozenset()

    def default(self) -> ChannelKey | None:
        """The value in a channel without the key. Raises ValueError when the model needs a value."""
        return None if self.required is not None else self.model()
