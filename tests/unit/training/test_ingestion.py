"""Which files a pattern means, and which of them are new."""

import pytest

from lakeloop.domain.training.ingestion import (
    SourceFile,
    listing_prefix,
    manifest,
    manifest_uri,
    matching,
    not_yet_ingested,
    run_uid_of,
)

NAMES = ["a.json", "b.json", "b.csv", "_hidden.json", ".crc.json", "sub/c.json", "ab.json", "sub/"]
FILES = [SourceFile(f"s3a://raw/in/{name}", "e1", 1) for name in NAMES]
PATTERNS = {
    "s3a://raw/in/*.json": ["a.json", "ab.json", "b.json"],
    "s3a://raw/in/?.json": ["a.json", "b.json"],
    "s3a://raw/in/[ab].json": ["a.json", "b.json"],
    "s3a://raw/in/[!a].json": ["b.json"],
    "s3a://raw/in/*/*.json": ["sub/c.json"],
    "s3a://raw/in/a.json": ["a.json"],
    "s3a://raw/in": ["a.json", "ab.json", "b.csv", "b.json"],
    "s3a://raw/in/": ["a.json", "ab.json", "b.csv", "b.json"],
    "s3a://raw/in/b.*": ["b.csv", "b.json"],
    "s3a://raw/in/[a.json": [],
    "s3a://raw/in/(a|b).json": [],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern(pattern: str) -> None:
    found = [each.uri.removeprefix("s3a://raw/in/") for each in matching(pattern, FILES)]
    assert found == PATTERNS[pattern]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_listing_by_the_prefix_holds_all_that_match(pattern: str) -> None:
    listed = [each for each in FILES if each.uri.startswith(listing_prefix(pattern))]
    assert matching(pattern, listed) == matching(pattern, FILES)


def test_a_file_is_new_until_a_committed_run_loaded_this_very_content() -> None:
    a1, a2, b = SourceFile("a", "e1", 1), SourceFile("a", "e2", 1), SourceFile("b", "e1", 1)
    manifests = {"committed": manifest("committed", "*", [a1], None), "died": manifest("died", "*", [b], 3)}
    assert not_yet_ingested([a1, b], manifests, {"committed"}) == [b]
    assert not_yet_ingested([a2, b], manifests, {"committed"}) == [a2, b]
    assert not_yet_ingested([a1, b], manifests, set()) == [a1, b]


def test_names_of_manifests() -> None:
    uri = manifest_uri("s3a://lake/t/", "job", "run")
    assert uri == "s3a://lake/t/_lakeloop/ingest/job/run.json"
    assert run_uid_of(uri) == "run"
    assert run_uid_of("s3a://lake/t/_lakeloop/ingest/job/") is None
