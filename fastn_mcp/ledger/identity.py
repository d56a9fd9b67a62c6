"""Accounts and people, as the ledger and the audit log record them."""

import re
from collections.abc import Iterable, Sequence

_KEY = " key:"


def bound_account(name: str, key: str) -> str:
    """Return the ledger's id of an account: its name and the digest of its key. Accounts of one name share nothing."""
    return f"{name}{_KEY}{key}" if key else name


def account_name(account: str) -> str:
    """Return the display name of a bound account."""
    return account.rpartition(_KEY)[0] or account


def who(principal: str, name: str | None) -> str:
    """Return a person as recorded: their name beside the principal, or the principal alone."""
    return f"{name} ({principal})" if name and name != principal.partition("|")[2] else principal


def without_issuers(people: str) -> str:
    """Return a text of `who` without the issuers of the principals, for people of the same issuer."""
    return _ISSUER.sub("", people)


def identities(principal: str, login_names: Iterable[str]) -> frozenset[str]:
    """Return the principals that may be one person's, in lower case: by subject, or by user name or e-mail address."""
    issuer, bar, _ = principal.partition("|")
    return frozenset(each.casefold() for each in (principal, *(f"{issuer}{bar}{name}" for name in login_names)))


def may_be(principal: str, login_names: Sequence[str], other: str, other_names: Sequence[str] = ()) -> bool:
    """Return whether two sign-ins may be of one person.

    If one has an e-mail address as its subject, and the other says none, that is not known.
    """
    if identities(principal, login_names) & identities(other, other_names):
        return True
    issuer, bar, subject = principal.partition("|")
    other_issuer, _, other_subject = other.partition("|")
    named = [(subject, (other_subject, *other_names)), (other_subject, (subject, *login_names))]
    is_hidden = any("@" in one and not any("@" in known for known in others) for one, others in named)
    return bool(bar) and is_hidden and issuer.casefold() == other_issuer.casefold()


_ISSUER = re.compile(r"https?://[^\s|()]+\|")


def holder(principal: str, account: str) -> str:
    """Return the key under which declines, distrusted channels and open requests of a caller are counted."""
    name, _, key = account.rpartition(_KEY)
    return f"{key} {principal}" if name else principal
