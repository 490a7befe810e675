"""Opens an untrusted wheel or sdist within limits; nothing else in the program ever does.

`inspect_upload` is strict, for what someone sends; `inspect_found` is lenient, for what already lies in a directory.
Nothing is extracted. All limits are counts of bytes and members, not seconds, so that the same file always has the
same answer; what they allow takes a few seconds, and 20 MiB of memory (100 MiB for a zip of 100,000 members).
Reading the one file it is given is the room's only I/O; it knows neither catalog nor the metadata's fields.
"""

from pypiserver_ng.archive.found import Found, inspect_found
from pypiserver_ng.archive.uploads import inspect_upload

__all__ = ["Found", "inspect_found", "inspect_upload"]
