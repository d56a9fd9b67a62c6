"""Slugs, made from names. Pure."""


def slug_of(name: str) -> str:
    """`Acme Corp` is `acme-corp`."""
    letters = (letter if letter.isalnum() and letter.isascii() else " " for letter in name.lower())
    return "-".join("".join(letters).split())


def camel_of(name: str) -> str:
    """`Google Sheets` is `googleSheets`: the slug of a connector."""
    first, *others = slug_of(name).split("-")
    return first + "".join(word.capitalize() for word in others)
