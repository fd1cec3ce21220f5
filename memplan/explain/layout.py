"""The segments of an allocator, followed block by block at the addresses that were recorded.

Where a block lies is known, so nothing has to be searched for: only how large it is follows from the rules by which
blocks are split and merged (c10/cuda/CUDACachingAllocator.cpp, should_split and free_block). That holds for every
stream and for private pools too.
"""

from __future__ import annotations

from collections.abc import Iterator

from memplan.allocator import Settings
from memplan.allocator.blocks import MIN_BLOCK, SMALL_SIZE
from memplan.explain.recording import Pool


class Life:
    """One allocation of the trace. `size` bytes count as allocated, of which `requested` were asked for. `born` and
    `died` are numbers of events; -1 for what was there before, None for what was not freed. `birth` and `death` count
    the allocations made before them."""

    __slots__ = (
        "address", "birth", "born", "death", "died", "frames", "number", "pool", "requested", "size", "stream",
    )  # fmt: skip

    def __init__(self, number: int, address: int, requested: int, stream: int, pool: Pool) -> None:
        self.number = number
        self.address = address
        self.requested = requested
        self.size = 0
        self.stream = stream
        self.pool = pool
        self.born = self.birth = -1
        self.died: int | None = None
        self.death: int | None = None
        self.frames: object = None


class Piece:
    """A piece of a segment: a block in use, of `life`, or free. `prev` and `next` are its neighbours."""

    __slots__ = ("address", "expandable", "life", "next", "pool", "prev", "size", "stream")

    def __init__(self, address: int, size: int, stream: int, pool: Pool, expandable: bool) -> None:
        self.address = address
        self.size = size
        self.stream = stream
        self.pool = pool
        self.expandable = expandable
        self.life: Life | None = None
        self.prev: Piece | None = None
        self.next: Piece | None = None

    @property
    def whole(self) -> bool:
        """Whether it is a free segment, with nothing beside it."""
        return self.life is None and self.prev is None and self.next is None


class Layout:
    """All segments of a device. `strange` counts events that do not go with what is known, `repaired` blocks from
    before the trace that turned out larger than the rules told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pieces: dict[int, Piece] = {}  # by address
        self.ends: dict[int, Piece] = {}  # of expandable ranges, by the address behind them
        self.astray: dict[int, Life] = {}  # blocks in use that lie in no known segment
        self.reserved = 0
        self.strange = 0
        self.repaired = 0

    def segments(self) -> Iterator[list[Piece]]:
        """The pieces of every segment, in order of addresses."""
        for address in sorted(self.pieces):
            piece = self.pieces[address]
            if piece.prev is None:
                chain = [piece]
                while (following := chain[-1].next) is not None:
                    chain.append(following)
                yield chain

    # ---- memory from the driver

    def add(self, address: int, size: int, stream: int, pool: Pool, expandable: bool) -> None:
        """A segment, or a range that is mapped."""
        self.reserved += size
        piece = Piece(address, size, stream, pool, expandable)
        self.pieces[address] = piece
        if not expandable:
            return
        before, after = self.ends.get(address), self.pieces.get(address + size)
        self.ends[address + size] = piece
        if before is not None and (before.stream, before.pool) == (stream, pool):
            before.next, piece.prev = piece, before
        if after is not None and after.expandable and (after.stream, after.pool) == (stream, pool):
            after.prev, piece.next = piece, after
        self._merge(piece)

    def remove(self, address: int, size: int) -> None:
        """A segment that goes back to the driver, or a range that is unmapped."""
        self.reserved -= size
        piece = self.pieces.get(address) or self._around(address)
        if piece is None or piece.life is not None or piece.address + piece.size < address + size:
            self.strange += 1
            return
        if address > piece.address:
            piece = self._cut(piece, address - piece.address)
        if size < piece.size:
            self._cut(piece, size)
        del self.pieces[piece.address]
        if piece.expandable:
            self.ends.pop(piece.address + piece.size, None)
        for neighbour in (piece.prev, piece.next):
            if neighbour is not None and neighbour is piece.prev:
                neighbour.next = None
            elif neighbour is not None:
                neighbour.prev = None

    # ---- blocks

    def take(self, life: Life) -> None:
        """A block is allocated where it was recorded to be."""
        piece = self.pieces.get(life.address)
        if piece is None or piece.life is not None:
            piece = self._repair(life.address)
        rounded = self.settings.round_size(life.requested)
        if piece is None:
            self.strange += 1
            life.size = rounded
            self.astray[life.address] = life
            return
        rest = piece.size - rounded
        if rest < 0:
            self.strange += 1
        if self._splits(rounded, rest, piece.expandable):
            self._cut(piece, rounded)
        piece.life = life
        life.size = piece.size

    def place(self, life: Life, size: int, free: Piece) -> Piece | None:
        """A block from before the trace, in use in `size` bytes within a free piece; what is free behind it."""
        if free.address < life.address:
            free = self._cut(free, life.address - free.address)
        rest = self._cut(free, size) if size < free.size else None
        free.life = life
        life.size = free.size
        return rest

    def release(self, life: Life) -> None:
        """A block is free for others; it merges with free neighbours."""
        if self.astray.pop(life.address, None) is not None:
            return
        piece = self.pieces[life.address]
        piece.life = None
        self._merge(piece)

    def _splits(self, rounded: int, rest: int, expandable: bool) -> bool:
        if rounded <= SMALL_SIZE or expandable:
            return rest >= MIN_BLOCK
        limit = self.settings.max_split_size
        return rest > SMALL_SIZE and (limit is None or rounded < limit)

    def _cut(self, piece: Piece, size: int) -> Piece:
        """Shorten a free piece to `size` bytes; the rest of it, free."""
        rest = Piece(piece.address + size, piece.size - size, piece.stream, piece.pool, piece.expandable)
        piece.size = size
        rest.prev, rest.next = piece, piece.next
        if piece.next is not None:
            piece.next.prev = rest
        piece.next = rest
        self.pieces[rest.address] = rest
        if piece.expandable:
            self.ends[rest.address] = piece
            self.ends[rest.address + rest.size] = rest
        return rest

    def _merge(self, piece: Piece) -> None:
        """Merge a free piece with free neighbours."""
        after = piece.next
        if after is not None and after.life is None:
            self._join(piece, after)
        before = piece.prev
        if before is not None and before.life is None:
            self._join(before, piece)

    def _join(self, first: Piece, second: Piece) -> None:
        del self.pieces[second.address]
        if first.expandable:
            self.ends.pop(second.address, None)
            self.ends[second.address + second.size] = first
        first.size += second.size
        first.next = second.next
        if second.next is not None:
            second.next.prev = first

    def _around(self, address: int) -> Piece | None:
        """The free piece that an address lies within. Slow, and rarely needed."""
        for piece in self.pieces.values():
            if piece.life is None and piece.address < address < piece.address + piece.size:
                return piece
        return None

    def _repair(self, address: int) -> Piece | None:
        """The piece that begins at an address within a free one. A block of the large pool may be up to 1 MiB larger
        than its request, and of one from before the trace that is not known: what lies in front was its own."""
        around = self._around(address)
        if around is None:
            return None
        self.repaired += 1
        size = address - around.address
        piece, owner = self._cut(around, size), around.prev
        if size <= SMALL_SIZE and owner is not None and owner.life is not None and owner.life.born < 0:
            owner.next, piece.prev = piece, owner
            owner.size += size
            owner.life.size = owner.size
            del self.pieces[around.address]
        return piece
