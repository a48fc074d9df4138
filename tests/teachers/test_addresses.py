"""Which addresses a teacher may have. The resolver is made up, so that any name can resolve to anything."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.errors import ConfigError
from distill_dagster.teachers.addresses import Checked, check, resolve

PUBLIC = ("8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1")
LOOPBACK = ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1")
PRIVATE = (
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
)
NEVER_PUBLIC = (
    "169.254.1.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.1.1",
    "fec0::1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "2001:db8::1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:a9fe:1::",
    "::127.0.0.1",
    "::8.8.8.8",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "2606:4700::5efe:10.0.0.1",  # ISATAP
)
NEVER = (
    "169.254.169.254",
    "fd00:ec2::254",
    "100.100.100.200",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "0.0.0.0",
    "::",
    "::ffff:0.0.0.0",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
)


def passes(*addresses: str, **more) -> bool:
    """Whether a host with these addresses may be a teacher's."""
    try:
        found = check("https://teacher.example.com/v1", resolver=lambda host, port: addresses, **more)
    except ConfigError as error:
        assert error.place == "teacher address teacher.example.com" and error.next_step
        return False
    assert found == Checked("https", "teacher.example.com", 443, addresses)
    return True


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert passes(address) and passes(address, endpoint="own_network") and not passes(address, endpoint="local")


@pytest.mark.parametrize("address", LOOPBACK)
def test_this_machine_passes_where_it_is_declared(address: str) -> None:
    assert not passes(address)
    assert passes(address, endpoint="local") and passes(address, endpoint="own_network")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_pass_where_they_are_declared(address: str) -> None:
    assert not passes(address) and not passes(address, endpoint="local")
    assert passes(address, endpoint="own_network")


@pytest.mark.parametrize("address", NEVER_PUBLIC)
def test_the_rest_passes_by_name_only(address: str) -> None:
    assert not passes(address) and not passes(address, endpoint="local")
    assert not passes(address, allow=["other.example.com"])
    assert passes(address, allow=["Teacher.Example.com"])


@pytest.mark.parametrize("address", NEVER)
def test_some_never_pass(address: str) -> None:
    for endpoint in ("local", "own_network", "third_party"):
        assert not passes(address, endpoint=endpoint, allow=["teacher.example.com"])


def test_one_bad_address_among_good_ones_is_enough() -> None:
    assert passes("8.8.8.8", "8.8.4.4")
    assert not passes("8.8.8.8", "10.0.0.1") and not passes("10.0.0.1", "8.8.8.8")
    assert not passes()


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_a_wrapped_address_is_judged_as_what_it_wraps(address: ipaddress.IPv4Address, prefix: str) -> None:
    wrapped = str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address)))
    for endpoint in ("third_party", "own_network") if not (address.is_loopback and "64:" in prefix) else ():
        assert passes(wrapped, endpoint=endpoint) == passes(str(address), endpoint=endpoint)
    wrapped = str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80)))
    assert passes(wrapped) == passes(str(address))


@given(st.ip_addresses())
def test_nothing_passes_that_is_not_public(address) -> None:
    if passes(str(address)):
        assert address.is_global and not address.is_multicast and not address.is_loopback


@pytest.mark.parametrize(
    "spelling", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_spellings_of_this_machine_are_seen_through(spelling: str) -> None:
    """The system's own resolver: these need no network."""
    with pytest.raises(ConfigError, match="this machine"):
        check(f"http://{spelling}:8000/v1")
    found = check(f"http://{spelling}:8000/v1", endpoint="local")
    assert found.port == 8000 and all(ipaddress.ip_address(one.split("%")[0]) for one in found.addresses)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://teacher.example.com", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("teacher.example.com", "scheme"),
        ("https://user:hunter22@teacher.example.com", "user or password"),
        ("https://hunter22@teacher.example.com", "user or password"),
        ("https://@teacher.example.com", "user or password"),
        ("https://", "host"),
        ("https://teacher.example.com\\@10.0.0.1", "password|host"),
        ("https://teacher.example.com/a b", "host"),
        ("https://teacher.example.com:99999/", "cannot be read"),
        ("https://[::1", "cannot be read"),
    ],
)
def test_malformed_addresses(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        check(url, resolver=lambda host, port: ["8.8.8.8"])
    assert "hunter22" not in str(error.value)


def test_a_name_that_does_not_resolve() -> None:
    def fails(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(ConfigError, match="does not resolve"):
        check("https://teacher.example.com", resolver=fails)


def test_the_answer_is_what_was_judged() -> None:
    """A second question to the resolver could be answered otherwise (DNS rebinding): there is none."""
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    found = check("http://Teacher.Example.COM.:81/v1", resolver=lambda host, port: next(answers))
    assert found == Checked("http", "teacher.example.com", 81, ("8.8.8.8",))
    assert next(answers) == ["127.0.0.1"]
    assert "127.0.0.1" in resolve("localhost", 80)
