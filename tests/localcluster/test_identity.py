from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcluster.errors import LocalClusterError
from localcluster.identity import POOL, Identity, allocate, identify

SOMEWHERE = Path("/home/me/lakeloop")
DIGESTS = st.text("0123456789abcdef", min_size=8, max_size=8)
NETWORKS = st.lists(
    st.tuples(st.integers(0, 2**15 - 1), st.integers(20, 32)).map(
        lambda pair: IPv4Network((int(POOL.network_address) + pair[0], pair[1]), strict=False)
    ),
    max_size=20,
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("Demo", id="upper case"),
        pytest.param("-demo", id="leading dash"),
        pytest.param("demo-", id="trailing dash"),
        pytest.param("a/b", id="slash"),
        pytest.param("..", id="parent folder"),
        pytest.param("a" * 31, id="too long"),
    ],
)
def test_a_bad_name_is_refused_with_what_it_may_be(name: str) -> None:
    with pytest.raises(LocalClusterError, match=r"--name .* lower-case letters"):
        identify(SOMEWHERE, name)


@pytest.mark.parametrize("name", ["a", "lakeloop", "two-words", "9", "a" * 30])
def test_names_outside_the_state_folder_fit_the_kernel(name: str) -> None:
    identity = identify(SOMEWHERE, name)
    assert len(identity.host_interface) <= 15
    assert identity.cgroup == f"/{identity.unique}"


def test_two_names_and_two_checkouts_share_nothing() -> None:
    every = [identify(root, name) for root in (SOMEWHERE, Path("/srv/other")) for name in ("one", "two")]
    for attribute in ("host_interface", "cgroup", "runtime_dir", "unique"):
        assert len({getattr(identity, attribute) for identity in every}) == len(every)


@given(digest=DIGESTS, taken=NETWORKS)
def test_an_allocated_link_is_free_and_in_the_pool(digest: str, taken: list[IPv4Network]) -> None:
    link = allocate(Identity("x", digest), taken)
    assert link.network.subnet_of(POOL)
    assert not any(link.network.overlaps(network) for network in taken)
    assert {link.host, link.node} == set(link.network.hosts())


@given(digest=DIGESTS)
def test_a_cluster_keeps_its_link_and_the_next_one_moves_on(digest: str) -> None:
    first = allocate(Identity("x", digest), [])
    assert first == allocate(Identity("x", digest), [])
    assert not allocate(Identity("y", digest), [first.network]).network.overlaps(first.network)


def test_a_pool_that_is_taken_is_said_to_be() -> None:
    with pytest.raises(LocalClusterError, match="no free /30 in"):
        allocate(Identity("x", "00000000"), [IPv4Network("172.16.0.0/12")])
