"""Other indexes: where they are, what they say of a project, and the bytes of their files.

`addresses` reads URLs, `client` asks over `sessions` that a `guard` keeps from going astray, `surroundings` is what the
machine says of the way, `unpacking` undoes content codings, `faults` has words for what goes wrong; `parsing`, with
`links` for HTML and `entries` for one file, makes a page of an answer; `pip_index` asks pip for its own; `probing`
finds out what they are worth.
Knows no policy and keeps nothing but connections. Nothing is imported here: `client` and what it needs cost a tenth of
a second and ten megabytes, which only an index that asks upstreams by itself has to pay.
"""
