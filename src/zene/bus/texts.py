"""The text so far of an open item, made from the deltas that were published of it."""

from typing import cast

from msgspec.structs import replace

from zene.domain.events import Draft, ItemDelta

TEXT_LIMIT = 1 << 20  # code points of an open item that are kept for late joiners


class Text:
    """Pieces, so that a long text is not copied for each delta. `first` says which item of which task it is."""

    def __init__(self, first: Draft) -> None:
        self._first = first
        self._pieces: list[str] = []
        self._length = 0

    def replace(self, delta: ItemDelta) -> None:
        """Replace the text from the delta's offset on; one that leaves a gap is not understood, and left out."""
        if delta.offset > self._length:
            return
        if delta.offset < self._length:
            kept = "".join(self._pieces)[: delta.offset]
            self._pieces, self._length = [kept], len(kept)
        if self._length < TEXT_LIMIT:
            self._pieces.append(delta.text)
            self._length += len(delta.text)

    def whole(self) -> Draft:
        """All of it, as one delta at offset 0."""
        delta = cast("ItemDelta", self._first.body)
        return replace(self._first, body=replace(delta, offset=0, text="".join(self._pieces)))
