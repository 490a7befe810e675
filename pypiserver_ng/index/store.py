"""What lies on the disk: the package directories, and the state beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.index.tree import Tree
from pypiserver_ng.storage import Directory, MetadataStore, Seat, SharedLock, make_private_directory


@dataclass(frozen=True, slots=True)
class Store:
    """One state directory and what it tells of, open in this process."""

    catalog: Catalog
    directory: Directory
    metadata: MetadataStore
    tree: Tree
    #: Of the process that reads files in the background.
    seat: Seat

    def close(self) -> None:
        self.catalog.close()
        self.tree.lock.close()
        self.seat.close()


def open_store(packages: Sequence[Path], state_dir: Path, *, is_server: bool, cell: memoryview | None = None) -> Store:
    """Raises OSError, and Invalid when the catalog cannot be used.

    What a server does not serve any more is forgotten; a command may know fewer of its directories. `cell` is a number
    in memory that all processes of a server share, for `SharedSerial`.
    """
    make_private_directory(state_dir)
    catalog = Catalog(state_dir, cell)
    directory = Directory(packages, state_dir)
    tree = Tree(catalog, directory, SharedLock(state_dir / "tree.lock"), is_server=is_server)
    return Store(catalog, directory, MetadataStore(state_dir / "metadata"), tree, Seat(state_dir / "reading.lock"))
