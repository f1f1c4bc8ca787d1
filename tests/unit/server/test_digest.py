"""The digest, by its definition on the page of contracts."""

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from lakeloop_server.digest import digest_of, hash_folder

FILES = {"MLmodel": b"flavors: {}\n", "a/b.txt": b"", "a-b": b"\x00\xff"}


def by_definition(files: dict[str, bytes]) -> str:
    lines = b"".join(
        path.encode() + b"\0" + hashlib.sha256(files[path]).hexdigest().encode() + b"\n" for path in sorted(files)
    )
    return "sha256:" + hashlib.sha256(lines).hexdigest()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def test_a_folder_has_the_digest_of_the_definition(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    assert digest_of(hash_folder(tmp_path)) == by_definition(FILES)


def test_it_is_a_known_value(tmp_path: Path) -> None:
    write(tmp_path, {"MLmodel": b"x"})
    assert digest_of(hash_folder(tmp_path)) == "sha256:523f2e266ee3720c2f41cc2837e9272423f71be6b264ad9e32233e88786f24d3"


def test_mlflows_note_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, FILES | {"registered_model_meta": b"x", "a/registered_model_meta": b"y"})
    assert digest_of(hash_folder(tmp_path)) == by_definition(FILES)


@given(st.dictionaries(st.text("abc/.", min_size=1), st.binary(), min_size=1), st.data())
def test_any_change_changes_it(files: dict[str, bytes], data: st.DataObject) -> None:
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    path = data.draw(st.sampled_from(sorted(hashes)))
    assert digest_of(hashes) != digest_of({**hashes, path: hashlib.sha256(b"other" + files[path]).hexdigest()})
    assert digest_of(hashes) != digest_of({p: h for p, h in hashes.items() if p != path})
    assert digest_of(hashes) == digest_of(dict(reversed(hashes.items())))
