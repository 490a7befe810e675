"""The tables. One schema for every engine."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

#: Rises with every change of the tables.
VERSION = 6

metadata = MetaData()

#: The catalog's own facts: `schema`, and `serial`, the number of the last change.
state = Table("state", metadata, Column("key", String, primary_key=True), Column("value", BigInteger, nullable=False))

projects = Table(
    "projects",
    metadata,
    Column("name", String, primary_key=True),
    Column("serial", BigInteger, nullable=False, index=True),
    # Kept at 0 when the last file goes, so that readers who follow serials learn of it.
    Column("files", Integer, nullable=False),
    Column("status", String, nullable=False, server_default="active"),
    Column("status_reason", String),
)

files = Table(
    "files",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("root", String, nullable=False),
    Column("path", String, nullable=False),
    Column("filename", String, nullable=False, index=True),
    Column("project", String, ForeignKey("projects.name"), nullable=False, index=True),
    Column("display_name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    # Microseconds since 1970, UTC.
    Column("upload_time", BigInteger, nullable=False),
    # The digests are NULL until the bytes were read: such a file is not listed yet.
    Column("sha256", String),
    Column("md5", String),
    Column("blake2b_256", String),
    Column("requires_python", String),
    Column("summary", String),
    Column("metadata_sha256", String),
    # Why the file could not be opened, where it could not.
    Column("problem", String),
    UniqueConstraint("root", "path"),
    Index("files_newest", "upload_time", sqlite_where=Column("sha256", String).is_not(None)),
    Index("files_unread", "id", sqlite_where=Column("sha256", String).is_(None)),
    # What was learnt of one file must never be recorded for another that came after it.
    sqlite_autoincrement=True,
)

#: What words are looked for in: the names and summaries of files that were read. See `finding`.
texts = Table(
    "texts",
    metadata,
    Column("project", String, primary_key=True),
    Column("text", String, primary_key=True),
    sqlite_with_rowid=False,
)

#: Directories that were mounts when they were last looked at.
mounts = Table("mounts", metadata, Column("path", String, primary_key=True))

#: Files of a deletion that began and has not ended: they are in no other table any more, and perhaps on the disk.
doomed = Table(
    "doomed",
    metadata,
    Column("root", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("project", String, nullable=False),
    Column("version", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
)

#: Everything that happened and that no file tells of, for ever. See `events`.
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    # As JSON, like its line in the journal.
    Column("content", LargeBinary, nullable=False),
)

#: When tokens were used last, in microseconds since 1970.
token_uses = Table(
    "token_uses", metadata, Column("id", String, primary_key=True), Column("time", BigInteger, nullable=False)
)

#: Identity tokens that were changed for tokens of this index, until they end by themselves.
used_identities = Table(
    "used_identities",
    metadata,
    Column("key", String, primary_key=True),
    # Microseconds since 1970.
    Column("expires", BigInteger, nullable=False, index=True),
)

# The tables below change only by applying events.

#: Tokens that were not revoked, until some time after they expired.
tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("created", BigInteger, nullable=False),
    # Microseconds since 1970.
    Column("expires", BigInteger, index=True),
    # As JSON, like in its event.
    Column("content", LargeBinary, nullable=False),
)

#: What is known of bytes that were uploaded, wherever somebody moves them.
uploads = Table(
    "uploads",
    metadata,
    Column("filename", String, primary_key=True),
    Column("sha256", String, primary_key=True),
    Column("upload_time", BigInteger, nullable=False),
    Column("user", String),
)

#: Yanked releases (PEP 592). Not on the files: those come and go when somebody moves them.
yanks = Table(
    "yanks",
    metadata,
    Column("project", String, primary_key=True),
    # As `release_key` writes it.
    Column("version", String, primary_key=True),
    Column("reason", String),
)

#: The provenance objects (PEP 740) of uploads whose attestations were verified, for exactly these bytes.
provenances = Table(
    "provenances",
    metadata,
    Column("filename", String, primary_key=True),
    Column("sha256", String, primary_key=True),
    Column("project", String, nullable=False, index=True),
    Column("content", LargeBinary, nullable=False),
)

#: Names of deleted uploads; they take no other bytes.
tombstones = Table(
    "tombstones",
    metadata,
    Column("filename", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
)
