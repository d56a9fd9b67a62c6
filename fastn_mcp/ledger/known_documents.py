"""What a process last knew of documents, so that most steps need no read before their commit."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from fastn_mcp.ledger.store import Document

_MAX_DOCUMENTS = 128
_MAX_LENGTH = 16_384
"""Characters of a document. Longer ones are read each time."""


class KnownDocuments:
    """Documents as this process last read or wrote them. Another process may have changed them since."""

    def __init__(self) -> None:
        self._known = OrderedDict[str, Document | None]()
        """By key, the latest last; None for a document that did not exist."""

    def recall(self, keys: Iterable[str], new: str | None = None) -> dict[str, Document] | None:
        """Return the documents that existed; None if one is not known. A `new` key is taken to be free."""
        documents = dict[str, Document]()
        for key in keys:
            if key not in self._known and key != new:
                return None
            document = self._known.get(key)
            if document is not None:
                documents[key] = document
        return documents

    def note(self, keys: Iterable[str], documents: Mapping[str, Document]) -> None:
        """Note which of these documents exist, and how."""
        for key in keys:
            self._known.pop(key, None)
            document = documents.get(key)
            if document is None or len(document.value) <= _MAX_LENGTH:
                self._known[key] = document
        while len(self._known) > _MAX_DOCUMENTS:
            self._known.popitem(last=False)

    def clear(self) -> None:
        self._known.clear()
