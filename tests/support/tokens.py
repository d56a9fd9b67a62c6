"""How many tokens of a model a text costs."""

import warnings


def tokens(text: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its data loader uses a deprecated function
        import bpe_openai  # pyright: ignore[reportMissingTypeStubs]
    return len(bpe_openai.get_encoding("o200k_base").encode(text))
