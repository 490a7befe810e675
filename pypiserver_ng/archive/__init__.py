"""Opens untrusted wheels and sdists, within limits and in processes of their own; nothing else in the program does.

The rest of the program knows `inspector`, which asks processes (`child`) over sockets (`wire`). Only those run the
readers: `uploads` is strict, for what someone sends; `found` is lenient, for what already lies in a directory.
The one exception is `found.locate_metadata`, which the mirror asks where in a wheel to look: it reads a zip directory,
within its limits, and nothing of what is packed. Nothing is extracted. The readers' limits are counts of bytes and
members, so that the same file always has the same answer; what they allow takes up to 64 MiB of memory and, on a slow
machine, a few seconds. The limits of the processes are for what nobody thought of. The room knows neither catalog nor
the metadata's fields.
"""
