"""What is sealed opens for its purpose, in its time, with a secret that is known; a token is good for its own form."""

import pytest
from support.clock import Clock

from fastn_mcp.guard.seal import Seal

ABC = "a secret of thirty-two characters"
OLD = "the secret that was in use before"


def sealing(*secrets: str, clock: Clock | None = None) -> Seal:
    return Seal(secrets, (clock or Clock()).system())


def test_sealed_value_opens_only_for_its_purpose() -> None:
    sealed = sealing(ABC).close("flash", {"said": [1, "two"]})
    assert sealing(ABC).open("flash", sealed, 60) == {"said": [1, "two"]}
    for other, text in (("session", sealed), ("flash", sealed[:-1]), ("flash", ""), ("flash", None)):
        assert sealing(ABC).open(other, text, 60) is None


def test_sealed_value_expires() -> None:
    clock = Clock()
    seal = sealing(ABC, clock=clock)
    sealed = seal.close("flash", 1)
    clock.pass_(59)
    assert seal.open("flash", sealed, 60) == 1
    clock.pass_(2)
    assert seal.open("flash", sealed, 60) is None


def test_first_secret_seals_and_every_secret_opens() -> None:
    old, new = sealing(OLD), sealing(ABC, OLD)
    assert new.open("flash", old.close("flash", 1), 60) == 1
    assert old.open("flash", new.close("flash", 1), 60) is None
    assert new.nonce("session", "form", old.token("session", "form"))
    assert old.nonce("session", "form", new.token("session", "form")) is None


def test_token_is_bound_to_its_form_and_session() -> None:
    seal = sealing(ABC)
    token = seal.token("session", "form")
    assert seal.nonce("session", "form", token) == token.partition(".")[0]
    assert seal.nonce("another", "form", token) is None
    assert seal.nonce("session", "another", token) is None
    assert seal.token("session", "form") != token, "each is used once"


@pytest.mark.parametrize("forged", ["{nonce}x.{signature}", "x.{signature}", "{nonce}.", "{nonce}", ".{signature}", ""])
def test_token_with_another_nonce_or_signature_is_refused(forged: str) -> None:
    nonce, _, signature = sealing(ABC).token("session", "form").partition(".")
    assert sealing(ABC).nonce("session", "form", forged.format(nonce=nonce, signature=signature)) is None
