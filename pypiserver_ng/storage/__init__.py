"""Where bytes live: the package directories and the scratch beside them.

Nothing here knows what a file means. Publishing never overwrites unless it is told to, and what was published
is durable: bytes, then the name, each flushed to the disk.
"""

from pypiserver_ng.storage.cache import Cache, Kept, Stamp, Usage
from pypiserver_ng.storage.directory import Directory, Exists, Seen, is_being_written, mtime_of, translate_os_error
from pypiserver_ng.storage.lock import Seat, SharedLock
from pypiserver_ng.storage.partial import Partial, hash_open_file
from pypiserver_ng.storage.scratch import Scratch, hash_stream
from pypiserver_ng.storage.sidecar import MetadataStore, make_private_directory

__all__ = [
    "Cache",
    "Directory",
    "Exists",
    "Kept",
    "MetadataStore",
    "Partial",
    "Scratch",
    "Seat",
    "Seen",
    "SharedLock",
    "Stamp",
    "Usage",
    "hash_open_file",
    "hash_stream",
    "is_being_written",
    "make_private_directory",
    "mtime_of",
    "translate_os_error",
]
