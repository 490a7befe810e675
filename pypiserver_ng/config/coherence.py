"""Which settings go together. Nobody may think himself protected by a rule that has no effect: then the start fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Action, Mode, Rule

#: Settings that only a server can keep that hands the files out itself.
_OF_CACHE_MODE = ("cooldown", "merge", "offline", "osv", "cache-size")


def check_pairing(passwords: str | None, authenticate: frozenset[Action]) -> None:
    if (passwords == ".") is not (not authenticate):
        raise Invalid(
            "'-P .' (no passwords) and '-a .' (no authentication) go together: "
            + ("add '-a .' or name a password file" if passwords == "." else "add '-P .' or name actions in -a")
        )


def check_proxy(values: Mapping[str, Any]) -> None:
    """Whether there is a proxy that can send files. Raises Invalid."""
    if values["accel-redirect"] and not values["trusted-proxy"]:
        raise Invalid("--accel-redirect has no effect without --trusted-proxy: add the proxy's address")


def check_tls(values: Mapping[str, Any]) -> None:
    """Whether a certificate has its key. Raises Invalid."""
    if bool(values["certfile"]) is not bool(values["keyfile"]):
        given, missing = ("certfile", "keyfile") if values["certfile"] else ("keyfile", "certfile")
        raise Invalid(f"--{given} has no effect without --{missing}: give both to serve https, or neither")


def check_modes(values: Mapping[str, Any], rules: Sequence[Rule]) -> None:
    """Whether what needs the cache has it. Raises Invalid."""
    mode: Mode = values["fallback-mode"]
    if values["disable-fallback"] and (mode is Mode.CACHE or any(rule.mode is Mode.CACHE for rule in rules)):
        raise Invalid("--disable-fallback leaves nothing to cache: remove it, or cache mode")
    if mode is Mode.REDIRECT:
        for name in _OF_CACHE_MODE:
            if values[name]:
                raise Invalid(f"--{name} has no effect on clients that are redirected: add --fallback-mode cache")
    for rule in rules:
        if (rule.mode or mode) is Mode.REDIRECT:
            _check_redirecting(rule, values)


def _check_redirecting(rule: Rule, values: Mapping[str, Any]) -> None:
    needs = {
        "cooldown": rule.cooldown,
        "merge": rule.merge,
        "freeze": rule.freeze,
        "allow": rule.allow is not None,
        "deny": rule.deny,
        "exempt": rule.exempt,
        "max-age": rule.max_age is not None,
    }
    remedies = ["remove its 'mode'"] * (rule.mode is not None)
    remedies += ["add --fallback-mode cache"] * (values["fallback-mode"] is Mode.REDIRECT)
    advice = " and ".join(remedies)
    for key, is_needed in needs.items():
        if is_needed:
            raise Invalid(f"{rule.label}: {key!r} has no effect on clients that are redirected: {advice}")
    if rule.upstreams == ():
        return
    # In redirect mode these were refused already, so it is the entry that leaves cache mode.
    if values["cooldown"] and rule.cooldown is None:
        raise Invalid(
            f'{rule.label}: --cooldown has no effect on clients that are redirected: {advice}, or add cooldown = "0"'
        )
    if values["osv"]:
        raise Invalid(f"{rule.label}: --osv has no effect on clients that are redirected: {advice}")
