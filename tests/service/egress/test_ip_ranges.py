"""Where a stranger may have us connect to, and in which spellings he will try to have us connect elsewhere."""

from ipaddress import ip_address

import pytest

from service.egress.ip_ranges import is_allowed
from service.egress.urls import AddressRefused, parse

PORTS = frozenset({80, 443, 8080})

INSIDE = [
    "0.0.0.0", "127.0.0.1", "127.255.255.254", "10.1.2.3", "100.64.0.1", "100.100.100.200", "169.254.169.254",
    "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "203.0.113.9", "224.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "fec0::1",
    "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001::1", "2001:db8::1", "3fff::1", "100::1",
    "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1", "4000::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", INSIDE)
def test_nothing_inside_may_be_called_however_it_is_wrapped(address: str) -> None:
    assert not is_allowed(ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_outside_may_be_called(address: str) -> None:
    assert is_allowed(ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd12::1", "::ffff:127.0.0.1"])
def test_development_may_call_its_own_networks(address: str) -> None:
    assert is_allowed(ip_address(address), private=True)


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "fe80::1", "224.0.0.1", "fd00:ec2::254", "fec0::1"])
def test_not_even_development_may_call_metadata_or_everybody(address: str) -> None:
    assert not is_allowed(ip_address(address), private=True)


HOSTILE = [
    "http://127.1/", "http://0x7f.1/", "http://2130706433/", "http://017700000001/", "http://127.0.0.1.", "http://0/",
    "http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://localhost/", "http://LOCALHOST./",
    "http://a.localhost/", "http://db.internal/", "http://printer.local/", "http://intranet/", "http://[::]/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://[::127.0.0.1]/", "http://[fec0::1]/", "http://[fe80::1%25eth0]/", "http://0.0.0.0/", "http://1.2.3.4.5/",
    "http://example.com:25/", "http://example.com:6379/", "http://example.com:0/", "http://example.com:99999/",
    "http://user:pass@example.com/", "http://example.com@127.0.0.1/", "http://example.com\\@127.0.0.1/",
    "gopher://example.com/", "file:///etc/passwd", "ftp://example.com/", "//example.com/", "example.com", "",
    "https://", "https://exa mple.com/", "https://example.com/a b", "https://example.com/\r\nHost: evil",
    "https://example.com/#part", "https://-.example.com", "https://example..com/", "https://" + "a" * 64 + ".com/",
    "https://example.com/" + "a" * 2000, "http://0x7f000001/", "http://example.0x7f/", "https://[1.2.3.4]/",
    "http://169.254.169.254/latest/meta-data",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_a_url_that_is_no_plain_address_of_the_outside_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        parse(url, ports=PORTS)
    assert str(refused.value).endswith((".", ")."))


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://Example.COM", "https://example.com/"),
        ("https://example.com:443/a?b=c", "https://example.com/a?b=c"),
        ("http://example.com:8080", "http://example.com:8080/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://[2606:4700:4700:0::1111]:443/x", "https://[2606:4700:4700::1111]/x"),
        ("https://1.1.1.1/hook", "https://1.1.1.1/hook"),
    ],
)
def test_a_good_url_has_one_normal_form(url: str, normal: str) -> None:
    assert parse(url, ports=PORTS).url == normal


def test_development_may_name_its_own_machine_and_any_port() -> None:
    assert parse("http://localhost:3000/hook", ports=PORTS, private=True).url == "http://localhost:3000/hook"
    with pytest.raises(AddressRefused):
        parse("http://169.254.169.254/", ports=PORTS, private=True)
