"""What is sealed opens again, with the same key and for the same thing only."""

import pytest

from service.core.encryption import CannotOpen, CannotSeal, Sealer
from service.settings import Settings

OLD, NEW = "the old key of these tests", "the new key of these tests"


def test_what_is_sealed_opens_for_what_it_belongs_to() -> None:
    sealer = Sealer((OLD,))
    sealed = sealer.seal(b"secret", b"endpoint 1")
    assert b"secret" not in sealed
    assert sealer.seal(b"secret", b"endpoint 1") != sealed
    assert sealer.open(sealed, b"endpoint 1") == b"secret"
    with pytest.raises(CannotOpen):
        sealer.open(sealed, b"endpoint 2")


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    sealed = Sealer((OLD,)).seal(b"secret", b"")
    both = Sealer((NEW, OLD))
    assert both.open(sealed, b"") == b"secret"
    with pytest.raises(CannotOpen):
        Sealer((OLD,)).open(both.seal(b"secret", b""), b"")


@pytest.mark.parametrize("place", [0, 5, 20, -1])
def test_what_was_changed_does_not_open(place: int) -> None:
    sealed = bytearray(Sealer((OLD,)).seal(b"secret", b""))
    sealed[place] ^= 1
    with pytest.raises(CannotOpen):
        Sealer((OLD,)).open(bytes(sealed), b"")


def test_a_key_that_ends_with_its_process_seals_nothing() -> None:
    with pytest.raises(CannotSeal, match="SECRET_KEY"):
        Sealer.of(Settings.from_env({})).seal(b"secret", b"")
    settings = Settings.from_env({"SECRET_KEY": OLD})
    assert Sealer.of(settings).open(Sealer((OLD,)).seal(b"x", b""), b"") == b"x"
    rotated = Settings.from_env({"SECRET_KEY": OLD, "ENCRYPTION_KEYS": f"{NEW},{OLD}"})
    assert Sealer.of(rotated).open(Sealer((OLD,)).seal(b"x", b""), b"") == b"x"
