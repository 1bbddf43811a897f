"""How a backup is restored with stock tools alone, as commands to type."""

from __future__ import annotations

import shlex

from backup.agent.model import Item, Manifest

_DECODERS = {"zst": "zstd -q -d -c", "gz": "gzip -d -c", "xz": "xz -q -d -c"}

_INTO = {  # what takes users, and what takes the data; root's password on a new server is its own
    "mariadb": ("grep -v '`root`@' | mariadb --force", "mariadb NEW_DATABASE"),
    "postgres": ("psql -d postgres", "pg_restore --exit-on-error -d NEW_DATABASE"),
}


def commands(manifest: Manifest) -> list[str]:
    """Return the commands, to be typed in the backup's folder."""
    return ["sha256sum -c SHA256SUMS", *(line for item in manifest.items for line in _of(item))]


def _of(item: Item) -> list[str]:
    decoded = {file.name: _decoded(file.name) for file in item.files}
    if item.kind == "sqlite":
        return [f"{line} > {shlex.quote(f'{item.source}.sqlite')}" for line in decoded.values()]
    if item.kind == "directory":
        return [
            f"{line} | tar -x -p --numeric-owner --xattrs --xattrs-include='*' --acls -f - -C EMPTY_FOLDER"
            for line in decoded.values()
        ]
    users, data = _INTO[item.kind]
    globals_ = [f"{line} | {users}" for name, line in decoded.items() if ".globals." in name]
    return globals_ + [f"{line} | {data}" for name, line in decoded.items() if ".globals." not in name]


def _decoded(name: str) -> str:
    """Return the pipeline that decrypts and unpacks a file to standard output."""
    stem, _, last = name.rpartition(".")
    packed = _DECODERS.get((stem if last == "age" else name).rpartition(".")[2])
    if last == "age":
        decrypted = f"age -d -i KEY_FILE {shlex.quote(name)}"
        return f"{decrypted} | {packed}" if packed else decrypted
    return f"{packed or 'cat'} {shlex.quote(name)}"
