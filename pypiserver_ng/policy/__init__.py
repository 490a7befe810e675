"""Rules become decisions with reasons. No clock, no socket, no store: facts are arguments.

The shadow rule lives here: one local file of any version answers for the whole project, and nothing of it
is asked from upstream, unless its owner wrote down that it is merged.
"""

from pypiserver_ng.policy.advisories import NO_ADVISORIES, Advisories, Advisory, parse_record
from pypiserver_ng.policy.decisions import Decision, Origin, Verdict, View
from pypiserver_ng.policy.notices import find_useless
from pypiserver_ng.policy.rules import Policy
from pypiserver_ng.policy.wording import describe_status

__all__ = [
    "NO_ADVISORIES",
    "Advisories",
    "Advisory",
    "Decision",
    "Origin",
    "Policy",
    "Verdict",
    "View",
    "describe_status",
    "find_useless",
    "parse_record",
]
