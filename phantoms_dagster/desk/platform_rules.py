"""What each registered platform adds to the desk: rules for `desk.css` and the drawing of its app's controls."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import PackageLoader, PrefixLoader

from phantoms_dagster.domain.models import Platform


def platform_rules() -> str:
    """Return the rules of all registered platforms as CSS."""
    return "".join(_rules(platform) for platform in Platform)


def screens() -> PrefixLoader:
    """Return the loader of the drawings, such as `tiktok/screen.html`."""
    packages = {str(platform): platform.spec.look.screen for platform in Platform}
    return PrefixLoader({name: PackageLoader(package, "") for name, package in packages.items() if package is not None})


def _rules(platform: Platform) -> str:
    look, chosen = platform.spec.look, f".review:has(#shown-{platform}:checked)"
    lines = [
        f":root {{ --{platform}: light-dark({look.colours[0]}, {look.colours[1]}); }}",
        f".dot.{platform} {{ background: {look.dot}; }}",
        f".bar-{platform} {{ fill: var(--{platform}); background: var(--{platform}); }}",
        f"{chosen} .words > .only-{platform} {{ display: block; }}",
        f"{chosen} .of-{platform} {{ background: var(--sunken); }}",
    ]
    if look.screen is not None:
        lines += [
            f".review:has(#show-chrome:checked):has(#shown-{platform}:checked) .chrome.only-{platform} {{ display: block; }}",
            files(look.screen).joinpath("screen.css").read_text(encoding="utf-8").rstrip(),
        ]
    if look.safe is not None:
        top, bottom, left, right = look.safe
        lines += [
            f".review:has(#show-safe:checked):has(#shown-{platform}:checked) .safe.only-{platform} {{ display: block; }}",
            f".safe.only-{platform} {{ --t: {top}; --b: {bottom}; --l: {left}; --r: {right}; }}",
        ]
    return "\n".join(lines) + "\n"
