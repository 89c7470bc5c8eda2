"""An address is exactly one mailbox we would write to, or an error that says why not."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail import addresses
from service.mail.addresses import Address, AddressesRefused, AddressRefused, parse_address, parse_addresses, unique


@pytest.mark.parametrize(
    ("text", "name", "addr_spec"),
    [
        ("ada@example.org", "", "ada@example.org"),
        ("Ada.L+tag@EXAMPLE.Org", "", "Ada.L+tag@example.org"),
        ("  ada@example.org ", "", "ada@example.org"),
        ("<ada@example.org>", "", "ada@example.org"),
        ("Ada Lovelace <ada@example.org>", "Ada Lovelace", "ada@example.org"),
        ("Dr. O'Brien <ob@example.org>", "Dr. O'Brien", "ob@example.org"),
        ("Zoë Müller <z@example.org>", "Zoë Müller", "z@example.org"),
        ('"Bob, \\"B\\" \\\\ Co" <b@example.org>', 'Bob, "B" \\ Co', "b@example.org"),
        ('"x@y.z" <b@example.org>', "x@y.z", "b@example.org"),
        ("-oQ/tmp@example.org", "", "-oQ/tmp@example.org"),
        ("a@bücher.example", "", "a@xn--bcher-kva.example"),
        ("a@日本ドメイン.example", "", "a@xn--eckwd4c7c5976acvb.example"),
        ("bounced@simulator.callboard.test", "", "bounced@simulator.callboard.test"),
        ("a@example.com", "", "a@example.com"),
        ("a@mail.example", "", "a@mail.example"),
    ],
)
def test_reads_one_mailbox(text: str, name: str, addr_spec: str) -> None:
    address = parse_address(text)
    assert (address.name, address.addr_spec) == (name, addr_spec)
    assert address.addr_spec.isascii()
    assert not address.smtputf8


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a@b.c, evil@e.e", "not_one_address"),
        ("a@b.c;evil@e.e", "not_one_address"),
        ("a@b.c evil@e.e", "not_one_address"),
        ("a@@b.c", "not_one_address"),
        ("a@b@c.de", "not_one_address"),
        ("alice@example.org]>", "not_one_address"),
        ("alice@example.org)bob@example.net", "not_one_address"),
        ("<a@b.cd>(comment)", "not_one_address"),
        ("a(comment)@b.cd", "not_one_address"),
        ("<@relay.example:a@b.cd>", "not_one_address"),
        ("d@e.fg> NOTIFY=SUCCESS", "not_one_address"),
        ("<d@e.fg> NOTIFY=SUCCESS", "not_one_address"),
        ("Friends: a@b.cd;", "not_one_address"),
        ("Last, First <a@b.cd>", "not_one_address"),
        ('x" <evil@e.fg>, "y <a@b.cd>', "not_one_address"),
        ('"a b"@example.org', "not_one_address"),
        ("mailto:a@example.org", "not_one_address"),
        ("d@e.fg>\r\nRCPT TO:<x@y.zz>", "control_character"),
        ("a@example.org\r\n", "control_character"),
        ("a\x00@example.org", "control_character"),
        ("a@example.org\u2028", "control_character"),
        ("a\x85@example.org", "control_character"),
        ("a\ud800@example.org", "control_character"),
        ("\x7fa@example.org", "control_character"),
        ("Ada\nBcc: e@e.fg <a@example.org>", "control_character"),
        ("=?utf-8?q?hi=0ABcc:_e@e?= <a@example.org>", "encoded_word"),
        ('"=?utf-8?b?aGk=?=" <a@example.org>', "encoded_word"),
        ("\u202eada <a@example.org>", "bidi_control"),
        ("no-at-sign", "syntax"),
        ("@example.org", "syntax"),
        ("a@", "syntax"),
        ("a@example.org.", "syntax"),
        (".a@example.org", "syntax"),
        ("a..b@example.org", "syntax"),
        ("a@-x.org", "syntax"),
        ("a@x_y.org", "syntax"),
        ("a\u200b@example.org", "syntax"),
        ("l" * 65 + "@example.org", "too_long"),
        ("é" * 33 + "@example.org", "too_long"),
        ("a@" + "b" * 64 + ".org", "too_long"),
        ("a@" + ".".join(["b" * 60] * 5), "too_long"),
        ("a" * 1001, "too_long"),
        ("N" * 321 + " <a@example.org>", "too_long"),
        ("a@[127.0.0.1]", "ip_literal"),
        ("a@[IPv6:::1]", "ip_literal"),
        ("a@localhost", "private_domain"),
        ("a@127.0.0.1", "private_domain"),
        ("a@x.internal", "private_domain"),
        ("a@x.LOCAL", "private_domain"),
        ("a@x。internal", "private_domain"),
        ("a@x.ｉnternal", "private_domain"),
        ("a@x.invalid", "private_domain"),
    ],
)
def test_refuses_what_is_not_one_public_mailbox(text: str, code: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        parse_address(text)
    assert refused.value.code == code
    assert refused.value.faults[0].message


@pytest.mark.parametrize(
    "text", ["root@localhost", "a@x.internal", "a@[127.0.0.1]", "a@[IPv6:::1]", "a@host", "a@x.local"]
)
def test_a_private_network_admits_what_only_it_can_reach(text: str) -> None:
    assert parse_address(text, private=True).addr_spec == text


@pytest.mark.parametrize("text", ["a@b.c, d@e.f", "a@[not-an-ip]", "a@[127.0.0.1", "a@localhost\r\n", "a@b..internal"])
def test_a_private_network_admits_nothing_malformed(text: str) -> None:
    with pytest.raises(AddressRefused):
        parse_address(text, private=True)


def test_an_international_local_part_asks_for_smtputf8() -> None:
    address = parse_address("дмитрий@почта.рф")
    assert address.smtputf8
    assert address.addr_spec == "дмитрий@xn--80a1acny.xn--p1ai"
    assert not address.mixed_script


@pytest.mark.parametrize("text", ["a@pаypal.com", "a@xn--pypal-4ve.com", "аda@example.org"])
def test_mixed_scripts_are_flagged_however_they_are_spelt(text: str) -> None:
    assert parse_address(text).mixed_script


@pytest.mark.parametrize("text", ["a@日本ドメイン.example", "a@müller.example", "a@кремль.рф", "a@abc.рф"])
def test_one_script_or_a_language_of_several_is_not_flagged(text: str) -> None:
    assert not parse_address(text).mixed_script


def test_a_name_given_apart_replaces_the_one_in_the_text() -> None:
    assert parse_address("Old <a@example.org>", name='x" <evil@e.fg>, "y').name == 'x" <evil@e.fg>, "y'
    with pytest.raises(AddressRefused, match="display name"):
        parse_address("a@example.org", name="x\r\nBcc: e@e.fg")


def test_a_list_reports_every_fault_with_its_index() -> None:
    with pytest.raises(AddressesRefused) as refused:
        parse_addresses(["a@example.org", "nobody", "b@example.org", "c@localhost"])
    assert [(fault.where, fault.code) for fault in refused.value.faults] == [("1", "syntax"), ("3", "private_domain")]


def test_repeated_mailboxes_count_once_and_the_first_spelling_stays() -> None:
    addresses = parse_addresses(["Ada <ada@example.org>", "b@example.org", "ADA@Example.ORG"] * 200)
    assert [str(address) for address in unique(addresses)] == ["Ada <ada@example.org>", "b@example.org"]


@given(st.text(max_size=60) | st.from_regex(r"[a-z<>\"@,;() ]{0,30}@[a-z<>\[\]. ]{0,30}"))
def test_whatever_is_read_is_safe_in_an_envelope_and_reads_the_same_again(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressRefused:
        return
    assert not set(address.addr_spec) & set(' \t\r\n\0<>(),:;"[]\\')
    assert address.addr_spec.count("@") == 1
    assert len(address.addr_spec.encode()) <= 254
    assert parse_address(address.addr_spec).addr_spec == address.addr_spec


PLAIN_LOCALS = (
    "ada",
    "a.b+c",
    "POSTMASTER",
    "Abuse",
    "!#$%&'*+/=?^_`{|}~-",
    "x" * 64,
    "x" * 65,
    ".a",
    "a..b",
    "a.",
    "é",
)
DOMAINS = (
    "example.org",
    "EXAMPLE.org",
    "bücher.example",
    "xn--bcher-kva.example",
    "a.test",
    "localhost",
    "x.internal",
    "[127.0.0.1]",
    "-bad.example",
    "a..example",
    "e" * 64 + ".example",
    ".".join(["d" * 60] * 4) + ".org",
    "例え.テスト",
    "раypal.example",
    "",
)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("local", PLAIN_LOCALS)
def test_a_domain_seen_before_changes_no_answer(local: str, domain: str, private: bool) -> None:
    def answer(read: Callable[[str, str, bool], Address]) -> Address | tuple[str, str]:
        try:
            return read("", f"{local}@{domain}", private)
        except AddressRefused as error:
            return error.code, str(error)

    assert answer(addresses._build) == answer(addresses._read)
    assert answer(addresses._build) == answer(addresses._read)
